//! The demo's two namespaces: nginx in one, curl in the other, a veth pair between them.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::exec;

pub const CLIENT: &str = "kfault-demo-client";
const SERVER: &str = "kfault-demo-server";
const ADDRESS: &str = "10.77.0.2";

/// Goes with everything that was made.
pub struct Stage {
    nginx: Option<Child>,
}

impl Stage {
    /// Makes the namespaces and starts the server.
    pub fn set() -> Result<Self> {
        // A demo that was killed leaves its namespaces behind.
        clear();
        let mut stage = Self { nginx: None };
        for name in [CLIENT, SERVER] {
            ip(&["netns", "add", name])?;
        }
        ip(&[
            "-n", CLIENT, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns",
            SERVER,
        ])?;
        for (name, address) in [(CLIENT, "10.77.0.1/24"), (SERVER, &format!("{ADDRESS}/24"))] {
            ip(&["-n", name, "address", "add", address, "dev", "eth0"])?;
            for device in ["lo", "eth0"] {
                ip(&["-n", name, "link", "set", device, "up"])?;
            }
        }
        ip(&["-n", CLIENT, "route", "add", "default", "via", ADDRESS])?;
        stage.serve()?;
        Ok(stage)
    }

    fn serve(&mut self) -> Result<()> {
        let folder = crate::target_dir().join("demo");
        std::fs::create_dir_all(&folder)?;
        let here = folder.display();
        let log = folder.join("nginx.log");
        let config = folder.join("nginx.conf");
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("    {name}_temp_path {here}/{name};\n"))
            .concat();
        std::fs::write(
            &config,
            format!(
                "daemon off;\nuser root;\nworker_processes 1;\npid {here}/nginx.pid;\n\
                 error_log {here}/nginx.log;\nevents {{}}\nhttp {{\n    access_log off;\n{temporary}    \
                 server {{ listen {ADDRESS}:80; location / {{ return 200 \"hello\\n\"; }} }}\n}}\n"
            ),
        )?;
        let nginx = exec::find("nginx").context("nginx is not installed")?;
        let child = Command::new(exec::find("ip").context("ip is not installed")?)
            .args(["netns", "exec", SERVER])
            .arg(nginx)
            .arg("-e")
            .arg(&log)
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start nginx")?;
        self.nginx = Some(child);
        let end = Instant::now() + Duration::from_secs(10);
        while let Err(error) = self.request() {
            if Instant::now() > end {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                bail!("nginx does not answer: {error:#}\n{said}");
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// One request of the client. Returns how long the connection took to be made: one round
    /// trip, on a clock that starts when curl does.
    pub fn request(&self) -> Result<Duration> {
        let said = exec::read(
            exec::program("ip")?
                .args(["netns", "exec", CLIENT, "curl", "--silent", "--show-error", "--fail"])
                .args(["--max-time", "30", "--output", "/dev/null"])
                .args(["--write-out", "%{time_connect}"])
                .arg(format!("http://{ADDRESS}/")),
        )?;
        let seconds: f64 = said.trim().parse().with_context(|| format!("curl said '{said}'"))?;
        Duration::try_from_secs_f64(seconds).with_context(|| format!("curl said '{said}'"))
    }

    /// Everything that a fault could have left on the client's interface.
    pub fn queues(&self) -> Result<String> {
        let tc = exec::find("tc").context("tc is not installed")?;
        let mut text = String::new();
        for list in [&["qdisc", "show"][..], &["filter", "show", "dev", "eth0", "egress"]] {
            let said = exec::read(
                exec::program("ip")?.args(["netns", "exec", CLIENT]).arg(&tc).args(list),
            );
            // Without a clsact qdisc tc refuses to list its filters: there are none.
            text.push_str(&said.unwrap_or_default());
        }
        text.push_str(&exec::read(exec::program("ip")?.args(["-n", CLIENT, "-brief", "link"]))?);
        Ok(text)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(nginx) = &mut self.nginx {
            // SAFETY: plain call; the child is ours and has not been waited for.
            unsafe { libc::kill(nginx.id().cast_signed(), libc::SIGTERM) };
            let _ = nginx.wait();
        }
        clear();
    }
}

fn clear() {
    for name in [CLIENT, SERVER] {
        // It is not there, as a rule.
        let _ = ip(&["netns", "delete", name]);
    }
}

fn ip(args: &[&str]) -> Result<()> {
    exec::read(exec::program("ip")?.args(args)).map(|_| ())
}
