//! Takes away what a crashed run left behind: queues with our handle, filters with our name, and
//! the `clsact` qdiscs of the journal. All of it is inert; foreign state stays as it is. What strains
//! leave is their own matter ([`super::strain::sweep`]).

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::linux::fs::MetadataExt;
use std::path::PathBuf;

use netlink_packet_route::tc::TcHandle;

use super::bpf::{ENTRY_NAME, HTTP_NAME};
use super::device::remove_empty_clsact;
use super::error::EngineError;
use super::journal::{self, Entry};
use super::netlink::{OUR_QUEUE, Rtnl};
use super::netns::enter_and_run;
use crate::plan::Direction;

/// Every network namespace that has a name or a process: inode → (file, what to call it).
fn namespaces() -> BTreeMap<u64, (File, String)> {
    let mut found = BTreeMap::new();
    let mut add = |path: PathBuf| {
        if let Ok(file) = File::open(&path)
            && let Ok(meta) = file.metadata()
        {
            found.entry(meta.st_ino()).or_insert((file, path.display().to_string()));
        }
    };
    add("/proc/self/ns/net".into());
    let entries = |path: &str| std::fs::read_dir(path).into_iter().flatten().flatten();
    for entry in entries("/run/netns") {
        add(entry.path());
    }
    for entry in entries("/proc") {
        if entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()) {
            add(entry.path().join("ns/net"));
        }
    }
    found
}

/// Sweeps the limits and every namespace; says what was removed. The host lock must be held.
///
/// # Errors
/// When the journal cannot be rewritten. A namespace that cannot be swept is logged and kept
/// in the journal.
pub fn sweep_all() -> Result<Vec<String>, EngineError> {
    let journal = journal::read();
    let mut kept = Vec::new();
    let mut removed = super::strain::sweep()?;
    for (inode, (file, name)) in namespaces() {
        let ours: Vec<Entry> = journal.iter().filter(|e| e.inode == inode).cloned().collect();
        match enter_and_run(&file, || sweep_one(&ours)).and_then(|result| result) {
            Ok(what) => removed.extend(what.into_iter().map(|w| format!("{w} in {name}"))),
            Err(error) => {
                tracing::warn!(namespace = name, %error, "cannot sweep");
                kept.extend(ours);
            }
        }
    }
    if kept != journal {
        journal::write(&kept)?;
    }
    Ok(removed)
}

fn sweep_one(journal: &[Entry]) -> io::Result<Vec<String>> {
    let mut rtnl = Rtnl::open()?;
    let mut removed = Vec::new();
    let links: BTreeMap<u32, String> = rtnl.links()?.into_iter().collect();
    for qdisc in rtnl.qdiscs(0)? {
        let ifindex = qdisc.ifindex.cast_unsigned();
        let Some(name) = links.get(&ifindex) else { continue };
        let at_root = qdisc.parent == TcHandle::ROOT;
        if qdisc.kind == "fq" && qdisc.handle.major == OUR_QUEUE && at_root {
            rtnl.remove_fq(ifindex)?;
            removed.push(format!("idle queue of {name}"));
        }
        if qdisc.kind != "clsact" {
            continue;
        }
        for direction in [Direction::Egress, Direction::Ingress] {
            let filters = rtnl.remove_filters(ifindex, direction, &[ENTRY_NAME, HTTP_NAME])?;
            if filters > 0 {
                removed.push(format!("{filters} idle filter(s) of {name}"));
            }
        }
        let made = journal.iter().any(|e| e.ifindex == ifindex && e.device == *name);
        if made && remove_empty_clsact(&mut rtnl, ifindex)? {
            removed.push(format!("idle clsact of {name}"));
        }
    }
    Ok(removed)
}
