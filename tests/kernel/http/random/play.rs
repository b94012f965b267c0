//! Both ends of a conversation, which do as it says.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use kfault_tests::net::Net;

use super::talk::{Step, Talk};

const PATIENCE: Duration = Duration::from_secs(10);
/// Long enough for a piece to be a packet of its own.
const PAUSE: Duration = Duration::from_micros(300);

/// Where conversations are had.
pub struct Stage<'a> {
    net: &'a Net,
    listener: TcpListener,
    at: SocketAddr,
}

impl<'a> Stage<'a> {
    pub fn new(net: &'a Net, at: SocketAddr) -> Result<Self> {
        let listener = net.client.ns.run(|| TcpListener::bind(at).context("listen"))?;
        Ok(Self { net, listener, at })
    }

    /// Has one; the client must hear what is expected, to the byte.
    pub fn play(&self, talk: &Talk) -> Result<()> {
        let stream = self.net.server.ns.run(|| TcpStream::connect(self.at).context("connect"))?;
        let (other, _) = self.listener.accept().context("accept")?;
        let (ours, theirs) = std::thread::scope(|scope| {
            let server = scope.spawn(|| act(other, &talk.server));
            let ours = act(stream, &talk.client);
            (ours, server.join())
        });
        let heard = match ours {
            Ok(heard) => heard,
            Err((heard, error)) => {
                compare(&heard, &talk.expected)
                    .with_context(|| format!("the client, after {} bytes: {error}", heard.len()))?;
                bail!("the client, after everything: {error}");
            }
        };
        compare(&heard, &talk.expected)?;
        if let Ok(Err((heard, error))) = theirs
            && !talk.ends
        {
            bail!("the server, after {} bytes: {error}", heard.len());
        }
        Ok(())
    }
}

type Broken = (Vec<u8>, std::io::Error);

/// Does as told, and waits for the end of the connection.
fn act(mut stream: TcpStream, steps: &[Step]) -> std::result::Result<Vec<u8>, Broken> {
    let mut heard = Vec::new();
    let mut due = 0;
    let mut done = || -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        for step in steps {
            match step {
                Step::Hears(many) => {
                    due += many;
                    while heard.len() < due {
                        more(&mut stream, &mut heard)?;
                    }
                }
                Step::Says(pieces, pauses) => {
                    for piece in pieces {
                        stream.write_all(piece)?;
                        if *pauses {
                            std::thread::sleep(PAUSE);
                        }
                    }
                }
                Step::Closes => stream.shutdown(Shutdown::Write)?,
            }
        }
        // Nothing more comes.
        loop {
            match more(&mut stream, &mut heard) {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(()),
                // As where a response is aborted.
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return Ok(()),
                Err(e) => return Err(e),
            }
        }
    };
    match done() {
        Ok(()) => Ok(heard),
        Err(error) => Err((heard, error)),
    }
}

fn more(stream: &mut TcpStream, heard: &mut Vec<u8>) -> std::io::Result<()> {
    let mut buffer = [0; 1 << 14];
    match stream.read(&mut buffer)? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        length => {
            heard.extend_from_slice(&buffer[..length]);
            Ok(())
        }
    }
}

/// That both are the same; else where they part.
fn compare(heard: &[u8], expected: &[u8]) -> Result<()> {
    let at = heard.iter().zip(expected).take_while(|(one, other)| one == other).count();
    let around = |bytes: &[u8]| {
        let (from, to) = (at.saturating_sub(200), (at + 100).min(bytes.len()));
        String::from_utf8_lossy(&bytes[from.min(to)..to]).into_owned()
    };
    ensure!(
        at == heard.len() && at == expected.len(),
        "from byte {at} on: heard {:?} of {}, expected {:?} of {}",
        around(heard),
        heard.len(),
        around(expected),
        expected.len()
    );
    Ok(())
}
