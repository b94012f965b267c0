//! An image of one layer in the format of `docker save`. The same files give the same bytes.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// An image in the making, in memory.
pub struct Image {
    name: String,
    config: Value,
    layer: Builder<Vec<u8>>,
    /// What is in the layer, without the first `/`.
    names: BTreeSet<String>,
}

impl Image {
    /// An empty one; the name has a tag.
    pub fn new(name: &str) -> Self {
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        Self {
            name: name.to_owned(),
            config: json!({"Env": [format!("PATH={path}")]}),
            layer: Builder::new(Vec::new()),
            names: BTreeSet::new(),
        }
    }

    /// What it runs, in front of any arguments.
    pub fn entrypoint(mut self, words: &[&str]) -> Self {
        self.config["Entrypoint"] = json!(words);
        self
    }

    /// What it runs when nothing else is asked for.
    pub fn command(mut self, words: &[&str]) -> Self {
        self.config["Cmd"] = json!(words);
        self
    }

    /// Adds a folder and those above it.
    pub fn folder(&mut self, path: &str, mode: u32) -> Result<()> {
        self.add(path, EntryType::Directory, mode, &[])
    }

    /// Adds a file; a second one of the same name is left out.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.add(path, EntryType::Regular, mode, content)
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) -> Result<()> {
        let Some(name) = self.claim(path)? else { return Ok(()) };
        let mut header = header(EntryType::Symlink, 0o777, 0);
        self.layer.append_link(&mut header, &name, target).with_context(|| format!("add {path}"))
    }

    /// Adds a copy of a file of this machine.
    pub fn copy(&mut self, from: &Path, path: &str, mode: u32) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("read {}", from.display()))?;
        self.file(path, mode, &content)
    }

    /// Adds a program of this machine at the same place, and the libraries that it needs.
    pub fn program(&mut self, file: &Path) -> Result<()> {
        self.copy(file, &file.display().to_string(), 0o755)?;
        // It fails for static programs, which need none.
        let listed = Command::new("ldd").arg(file).output().context("start ldd")?;
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        for library in libraries(&listed) {
            self.copy(Path::new(library), library, 0o755)?;
        }
        Ok(())
    }

    /// Writes the archive.
    pub fn write(self, to: &Path) -> Result<()> {
        let folder = to.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        // A reader finds the old one or the new one.
        let aside = to.with_extension("new");
        let file = File::create(&aside).with_context(|| format!("write {}", aside.display()))?;
        let mut file = BufWriter::new(file);
        self.archive(&mut file)?;
        file.flush()?;
        fs::rename(&aside, to).with_context(|| format!("write {}", to.display()))
    }

    fn archive(self, to: &mut impl Write) -> Result<()> {
        let layer = self.layer.into_inner().context("end the layer")?;
        let config = serde_json::to_vec(&json!({
            "architecture": match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            },
            "os": "linux",
            "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", digest(&layer))]},
        }))?;
        let config_name = format!("{}.json", digest(&config));
        let manifest = json!([
            {"Config": config_name, "RepoTags": [self.name], "Layers": ["layer.tar"]}
        ]);
        let manifest = serde_json::to_vec(&manifest)?;
        let mut archive = Builder::new(to);
        for (name, content) in
            [(config_name.as_str(), &config), ("layer.tar", &layer), ("manifest.json", &manifest)]
        {
            let mut header = header(EntryType::Regular, 0o644, content.len());
            archive.append_data(&mut header, name, content.as_slice())?;
        }
        archive.finish()?;
        Ok(())
    }

    fn add(&mut self, path: &str, kind: EntryType, mode: u32, content: &[u8]) -> Result<()> {
        let Some(name) = self.claim(path)? else { return Ok(()) };
        let mut header = header(kind, mode, content.len());
        self.layer.append_data(&mut header, &name, content).with_context(|| format!("add {path}"))
    }

    /// The name for a new entry, after its folders were added; nothing if there is one already.
    fn claim(&mut self, path: &str) -> Result<Option<String>> {
        let name = path.trim_matches('/').to_owned();
        if !self.names.insert(name.clone()) {
            return Ok(None);
        }
        if let Some((above, _)) = name.rsplit_once('/') {
            self.folder(above, 0o755)?;
        }
        Ok(Some(name))
    }
}

fn header(kind: EntryType, mode: u32, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The files in what `ldd` says.
fn libraries(listed: &str) -> impl Iterator<Item = &str> {
    listed.split_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn image() -> Vec<u8> {
        let mut image = Image::new("kfault.test/x:1").entrypoint(&["/bin/x"]);
        image.file("/usr/bin/x", 0o755, b"program").unwrap();
        image.file("/usr/bin/x", 0o755, b"again").unwrap();
        image.link("/usr/bin/y", "x").unwrap();
        let mut bytes = Vec::new();
        image.archive(&mut bytes).unwrap();
        bytes
    }

    fn part(archive: &[u8], wanted: &str) -> Vec<u8> {
        let mut archive = tar::Archive::new(archive);
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            if entry.path().unwrap().to_string_lossy().ends_with(wanted) {
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                return content;
            }
        }
        panic!("no {wanted}");
    }

    #[test]
    fn folders_come_before_what_is_in_them_and_nothing_comes_twice() {
        let layer = part(&image(), "layer.tar");
        let mut layer = tar::Archive::new(layer.as_slice());
        let names = layer
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().to_string_lossy().into_owned());
        assert_eq!(names.collect::<Vec<_>>(), ["usr", "usr/bin", "usr/bin/x", "usr/bin/y"]);
    }

    #[test]
    fn the_layer_is_named_by_its_own_digest() {
        let (archive, again) = (image(), image());
        assert_eq!(archive, again);
        let manifest: Value = serde_json::from_slice(&part(&archive, "manifest.json")).unwrap();
        let config: Value =
            serde_json::from_slice(&part(&archive, manifest[0]["Config"].as_str().unwrap()))
                .unwrap();
        let wanted = format!("sha256:{}", digest(&part(&archive, "layer.tar")));
        assert_eq!(config["rootfs"]["diff_ids"][0], wanted);
        assert_eq!(config["config"]["Entrypoint"][0], "/bin/x");
        assert_eq!(manifest[0]["RepoTags"][0], "kfault.test/x:1");
    }

    #[test]
    fn libraries_are_read_from_what_ldd_says() {
        let listed = "\tlinux-vdso.so.1 (0x7f)\n\tlibz.so.1 => /lib/libz.so.1 (0x7f)\n\t/lib64/ld.so (0x7f)\n";
        assert_eq!(libraries(listed).collect::<Vec<_>>(), ["/lib/libz.so.1", "/lib64/ld.so"]);
        assert_eq!(libraries("\tnot a dynamic executable\n").count(), 0);
    }
}
