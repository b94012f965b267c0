//! Certificates, tokens and the files that clients log in with. They are as old as the cluster.

use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::json;

use super::node::Node;
use super::{API_SERVICE, CONTROL_ADDRESS, Cluster};
use crate::exec;

/// Makes all of them.
pub fn create(cluster: &Cluster, nodes: &[Node]) -> Result<()> {
    let maker = Maker { cluster, folder: cluster.file("pki") };
    fs::create_dir_all(&maker.folder)?;
    maker.authority()?;
    let names = format!(
        "IP:{CONTROL_ADDRESS},IP:{API_SERVICE},IP:127.0.0.1,DNS:localhost,DNS:kubernetes,\
         DNS:kubernetes.default,DNS:kubernetes.default.svc,\
         DNS:kubernetes.default.svc.cluster.local"
    );
    maker.certificate("apiserver", "/CN=kube-apiserver", Some(&names))?;
    // With it the API server logs in at the kubelets, for logs and exec.
    maker.certificate("kubelet-client", "/O=system:masters/CN=kube-apiserver", None)?;
    maker.account_keys()?;
    let authority = exec::read(
        exec::program("openssl")?.args(["base64", "-A", "-in"]).arg(maker.folder.join("ca.crt")),
    )?;

    let masters = Some("system:masters");
    let mut users = vec![
        ("admin".to_owned(), "admin".to_owned(), masters),
        // All rights in place of an account for each of its controllers, which cost seconds.
        ("kube-controller-manager".into(), "system:kube-controller-manager".into(), masters),
        ("kube-scheduler".into(), "system:kube-scheduler".into(), None),
        ("kube-proxy".into(), "system:kube-proxy".into(), None),
    ];
    for node in nodes {
        users.push((node.name(), format!("system:node:{}", node.name()), Some("system:nodes")));
    }
    let mut tokens = String::new();
    for (file, user, group) in users {
        let token = token()?;
        let group = group.map(|group| format!(",\"{group}\"")).unwrap_or_default();
        tokens.push_str(&format!("{token},{user},{user}{group}\n"));
        let path = cluster.kubeconfig(&file);
        fs::write(&path, login(&token, authority.trim())?)
            .with_context(|| path.display().to_string())?;
        if file == "admin" {
            // The same for curl, which starts faster than kubectl.
            let config = format!(
                "silent\nshow-error\nfail\nmax-time = 10\ncacert = \"{}\"\n\
                 header = \"Authorization: Bearer {token}\"\n",
                maker.folder.join("ca.crt").display()
            );
            fs::write(cluster.file("curl.conf"), config)?;
        }
    }
    fs::write(maker.folder.join("tokens.csv"), tokens)?;
    Ok(())
}

struct Maker<'a> {
    cluster: &'a Cluster,
    folder: PathBuf,
}

impl Maker<'_> {
    fn authority(&self) -> Result<()> {
        self.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            "ca.key",
            "-out",
            "ca.crt",
            "-days",
            "30",
            "-subj",
            "/CN=kfault-cluster",
        ])
    }

    /// A key and a certificate for either side of a connection.
    fn certificate(&self, name: &str, subject: &str, names: Option<&str>) -> Result<()> {
        let (key, request) = (format!("{name}.key"), format!("{name}.csr"));
        let (certificate, extensions) = (format!("{name}.crt"), format!("{name}.ext"));
        let mut text = String::from("extendedKeyUsage=serverAuth,clientAuth\n");
        if let Some(names) = names {
            text.push_str(&format!("subjectAltName={names}\n"));
        }
        fs::write(self.folder.join(&extensions), text)?;
        self.openssl(&[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            &key,
            "-out",
            &request,
            "-subj",
            subject,
        ])?;
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "30",
            "-out",
            &certificate,
            "-extfile",
            &extensions,
        ])
    }

    /// What the tokens of ServiceAccounts are signed with.
    fn account_keys(&self) -> Result<()> {
        self.openssl(&["ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", "sa.key"])?;
        self.openssl(&["ec", "-in", "sa.key", "-pubout", "-out", "sa.pub"])
    }

    fn openssl(&self, args: &[&str]) -> Result<()> {
        let mut command = exec::program("openssl")?;
        command.current_dir(&self.folder).args(args);
        exec::read(&mut command).map(|_| ()).with_context(|| {
            format!("make the credentials in {}", self.cluster.file("pki").display())
        })
    }
}

fn token() -> Result<String> {
    let mut bytes = [0_u8; 16];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("read /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn login(token: &str, authority: &str) -> Result<String> {
    let file = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "kfault",
        "clusters": [{"name": "kfault", "cluster": {
            "server": format!("https://{CONTROL_ADDRESS}:6443"),
            "certificate-authority-data": authority,
        }}],
        "users": [{"name": "own", "user": {"token": token}}],
        "contexts": [{"name": "kfault", "context": {"cluster": "kfault", "user": "own"}}],
    });
    Ok(serde_json::to_string_pretty(&file)?)
}
