//! The words of `--target` and `--peer`.

use std::fmt;
use std::str::FromStr;

use super::NodeError;

/// The allowed forms, for messages and help.
pub const FORMS: &str = "netns:NAME (glob allowed), unit:NAME.service, cgroup:PATH, \
                         container:ID-OR-NAME, pid:N, process:COMM";

/// Longest process name that the kernel keeps, in bytes.
pub const COMM_LEN: usize = 15;

/// One `--target` or `--peer`, understood but not yet looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// Named network namespaces, by glob.
    Netns(String),
    /// A systemd unit, with its suffix.
    Unit(String),
    /// A cgroup's path, in v2 where it is mounted.
    Cgroup(String),
    /// A container by id, id prefix or name.
    Container(String),
    /// One process.
    Pid(u32),
    /// Every process of this name.
    Process(String),
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Netns(name) => write!(f, "netns:{name}"),
            Self::Unit(name) => write!(f, "unit:{name}"),
            Self::Cgroup(path) => write!(f, "cgroup:{path}"),
            Self::Container(name) => write!(f, "container:{name}"),
            Self::Pid(pid) => write!(f, "pid:{pid}"),
            Self::Process(comm) => write!(f, "process:{comm}"),
        }
    }
}

impl FromStr for Word {
    type Err = NodeError;

    fn from_str(text: &str) -> Result<Self, NodeError> {
        let bad = |reason: &str| NodeError::Word { word: text.into(), reason: reason.into() };
        let (form, name) =
            text.split_once(':').ok_or_else(|| bad("it has no \"form:\" in front"))?;
        if name.is_empty() {
            return Err(bad("there is nothing after the colon"));
        }
        match form {
            "netns" if name.contains('/') => {
                Err(bad("a namespace is a name in /run/netns, without a slash"))
            }
            "netns" => Ok(Self::Netns(name.into())),
            "unit" if name.contains('/') => Err(bad("a unit is a name without a slash")),
            "unit" => Ok(Self::Unit(unit_name(name))),
            "cgroup" => {
                if name.split('/').any(|part| part == "..") {
                    return Err(bad("the path must not hold \"..\""));
                }
                let parts: Vec<&str> =
                    name.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
                Ok(Self::Cgroup(format!("/{}", parts.join("/"))))
            }
            "container" if name.contains('/') => {
                Err(bad("a container is an id or a name without a slash"))
            }
            "container" => Ok(Self::Container(name.into())),
            "pid" => match name.parse() {
                Ok(pid) if pid > 0 => Ok(Self::Pid(pid)),
                _ => Err(bad("a pid is a whole number from 1 on")),
            },
            "process" => Ok(Self::Process(name.into())),
            _ => Err(bad(&format!("there is no form {form:?}"))),
        }
    }
}

/// A unit's full name: without a known suffix it is a service.
fn unit_name(name: &str) -> String {
    const SUFFIXES: [&str; 4] = [".service", ".scope", ".slice", ".socket"];
    if SUFFIXES.iter().any(|suffix| name.ends_with(suffix)) {
        name.into()
    } else {
        format!("{name}.service")
    }
}

/// The name as the kernel keeps it: cut to [`COMM_LEN`] bytes.
#[must_use]
pub fn as_comm(name: &str) -> &[u8] {
    &name.as_bytes()[..name.len().min(COMM_LEN)]
}

/// Shell-style match over a whole name: `*` any run, `?` any one character, `[a-z]` and `[!a]`
/// a set. An unclosed `[` is itself.
#[must_use]
pub fn glob(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    glob_chars(&pattern, &name)
}

fn glob_chars(pattern: &[char], name: &[char]) -> bool {
    // On a mismatch only the last star has to give way: linear memory, no recursion.
    let (mut p, mut n) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&'*') {
            retry = Some((p, n));
            p += 1;
            continue;
        }
        if let Some(width) = pattern.get(p..).and_then(|rest| one(rest, name[n])) {
            p += width;
            n += 1;
            continue;
        }
        let Some((star, taken)) = retry else {
            return false;
        };
        retry = Some((star, taken + 1));
        p = star + 1;
        n = taken + 1;
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// How many pattern characters match this one character, if they do.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match pattern.first()? {
        '?' => Some(1),
        '[' => match pattern.iter().skip(2).position(|p| *p == ']').map(|at| at + 2) {
            Some(close) => set(&pattern[1..close], c).then_some(close + 1),
            None => (c == '[').then_some(1),
        },
        literal => (*literal == c).then_some(1),
    }
}

/// Whether a bracket set holds this character.
fn set(set: &[char], c: char) -> bool {
    let (negated, set) = match set {
        ['!' | '^', rest @ ..] => (true, rest),
        _ => (false, set),
    };
    let (mut at, mut found) = (0, false);
    while at < set.len() {
        if at + 2 < set.len() && set[at + 1] == '-' {
            found |= (set[at]..=set[at + 2]).contains(&c);
            at += 3;
        } else {
            found |= set[at] == c;
            at += 1;
        }
    }
    found != negated
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_is_understood() {
        let word = |text: &str| text.parse::<Word>().unwrap();
        assert_eq!(word("netns:web-*"), Word::Netns("web-*".into()));
        assert_eq!(word("unit:nginx.service"), Word::Unit("nginx.service".into()));
        assert_eq!(word("unit:nginx"), Word::Unit("nginx.service".into()));
        assert_eq!(word("unit:app.slice"), Word::Unit("app.slice".into()));
        assert_eq!(word("cgroup:system.slice//a/./b/"), Word::Cgroup("/system.slice/a/b".into()));
        assert_eq!(word("cgroup:/"), Word::Cgroup("/".into()));
        assert_eq!(word("container:web"), Word::Container("web".into()));
        assert_eq!(word("pid:17"), Word::Pid(17));
        assert_eq!(word("process:a:b"), Word::Process("a:b".into()));
    }

    #[test]
    fn a_bad_word_is_refused_with_the_allowed_forms() {
        for text in [
            "web",
            "pod:web",
            "pid:0",
            "pid:x",
            "pid:-1",
            "netns:",
            "netns:a/b",
            "cgroup:/a/../b",
            ":x",
            "",
        ] {
            let error = text.parse::<Word>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
            assert!(error.contains("process:COMM"), "{error}");
        }
    }

    #[test]
    fn globs_match_as_in_a_shell() {
        for (pattern, name, want) in [
            ("web-*", "web-1", true),
            ("web-*", "web-", true),
            ("web-*", "web", false),
            ("*", "", true),
            ("w?b", "web", true),
            ("w?b", "wb", false),
            ("*-*-c", "a-b-c", true),
            ("*a*b", "xaxbxab", true),
            ("web-[0-9]", "web-7", true),
            ("web-[!0-9]", "web-7", false),
            ("a[", "a[", true),
            ("[]]", "]", true),
            ("web", "web-1", false),
        ] {
            assert_eq!(glob(pattern, name), want, "{pattern} against {name}");
        }
    }

    proptest! {
        #[test]
        fn a_name_matches_itself_and_a_star(name in "[a-z0-9._-]{0,20}") {
            prop_assert!(glob(&name, &name));
            prop_assert!(glob("*", &name));
            let starred = format!("*{name}*");
            prop_assert!(glob(&starred, &name));
        }

        #[test]
        fn no_word_makes_the_parser_panic(text in "\\PC{0,40}") {
            let _ = text.parse::<Word>();
        }

        #[test]
        fn no_glob_makes_the_matcher_panic(pattern in "[a*?\\[\\]!^-]{0,12}", name in "[a\\[\\]-]{0,12}") {
            let _ = glob(&pattern, &name);
        }

        #[test]
        fn a_word_reads_back_as_itself(text in "(netns|unit|cgroup|container|process):[a-z/*.]{1,12}") {
            if let Ok(word) = text.parse::<Word>() {
                prop_assert_eq!(word.to_string().parse::<Word>().unwrap(), word);
            }
        }
    }
}
