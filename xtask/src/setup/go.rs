//! Go, which the test cluster's programs are built with.

use std::path::PathBuf;
use std::process::Command;

use crate::exec;

/// Debian's package.
pub const PACKAGE: &str = "golang-go";

/// The oldest that knows the modules' language: major, minor.
const LEAST: (u32, u32) = (1, 24);

/// A compiler that is new enough: on the path, or where releases and Debian's versioned packages
/// put it.
pub fn find() -> Option<PathBuf> {
    let mut places: Vec<PathBuf> = exec::find("go").into_iter().collect();
    places.push("/usr/local/go/bin/go".into());
    let versioned = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    places.extend(
        versioned
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("go-"))
            .map(|entry| entry.path().join("bin/go")),
    );
    places.into_iter().find(|go| {
        // Not the version that a module nearby asks for, which would be fetched.
        let mut command = Command::new(go);
        command.arg("version").env("GOTOOLCHAIN", "local");
        go.is_file() && exec::read(&mut command).is_ok_and(|said| is_enough(&said))
    })
}

/// Whether `setup` can install one that is new enough.
pub fn is_offered() -> bool {
    let said = exec::read(Command::new("apt-cache").args(["policy", PACKAGE]));
    said.is_ok_and(|said| {
        let candidate = said.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
        // It has an epoch: 2:1.24~2
        candidate.and_then(|it| it.split_once(':')).is_some_and(|(_, it)| parse(it) >= Some(LEAST))
    })
}

fn is_enough(said: &str) -> bool {
    let word = said.split_whitespace().nth(2);
    word.and_then(|word| word.strip_prefix("go")).and_then(parse) >= Some(LEAST)
}

fn parse(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(is_enough("go version go1.26.8 linux/amd64\n"));
        assert!(is_enough("go version go1.24 linux/amd64\n"));
        assert!(!is_enough("go version go1.9.7 linux/amd64\n"));
        assert!(!is_enough("nothing of the kind"));
        assert_eq!(parse("1.19~1"), Some((1, 19)));
    }
}
