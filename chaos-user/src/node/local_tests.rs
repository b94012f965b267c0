use super::super::fixture::Fixture;
use super::super::protect::Protection;
use super::*;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn resolve(fixture: &Fixture, words: &[&str]) -> Result<Found, NodeError> {
    let (mut host, mut found) = (fixture.host(), Found::default());
    for word in words {
        host.resolve_into(&word.parse().unwrap(), &mut found)?;
    }
    Ok(found)
}

fn names(found: &Found) -> Vec<&str> {
    found.workloads.iter().map(|w| w.name.as_str()).collect()
}

#[test]
fn a_glob_finds_every_namespace_and_skips_broken_files() {
    let fixture = Fixture::new();
    for name in ["web-2", "web-1", "db"] {
        fixture.named(name);
    }
    fs::write(fixture.path("netns/web-broken"), "").unwrap();
    let found = resolve(&fixture, &["netns:web-*", "netns:web-1"]).unwrap();
    assert_eq!(names(&found), ["netns:web-1", "netns:web-2"]);
    let one = &found.workloads[0];
    assert_eq!(one.cgroup, None);
    assert_eq!(one.inode, fs::metadata(fixture.path("spaces/web-1")).unwrap().ino());
    assert_eq!(one.netns, fixture.path("netns/web-1").to_string_lossy());
    assert_eq!(one.default_device.as_deref(), Some("eth0"));
}

#[test]
fn nothing_found_says_what_there_is() {
    let fixture = Fixture::new();
    fixture.named("db");
    fixture.process(7, "nginx", "/system.slice/nginx.service", "host");
    for (word, there) in [
        ("netns:web", "db"),
        ("unit:apache.service", "nginx.service"),
        ("cgroup:/system.slice/x", "/system.slice/nginx.service"),
        ("container:web", "no containers"),
        ("pid:9", "no such process"),
        ("process:apache", "nginx"),
    ] {
        let error = resolve(&fixture, &[word]).unwrap_err();
        assert!(error.is_refusal());
        let text = error.to_string();
        assert!(text.contains(word) && text.contains(there), "{text}");
    }
}

#[test]
fn a_unit_in_our_namespace_is_a_cgroup_target() {
    let fixture = Fixture::new();
    fixture.process(7, "nginx", "/system.slice/nginx.service", "host");
    fixture.process(8, "nginx", "/system.slice/nginx.service", "host");
    let found = resolve(&fixture, &["unit:nginx.service", "pid:7", "process:nginx"]).unwrap();
    assert_eq!(names(&found), ["unit:nginx.service"], "the same workload counts once");
    let cgroup = found.workloads[0].cgroup.clone().unwrap();
    assert_eq!((cgroup.path.as_str(), cgroup.level), ("/system.slice/nginx.service", 2));
    assert_eq!(found.workloads[0].default_device.as_deref(), Some("ens3"));
    assert!(found.warnings[0].contains("2 processes"), "{:?}", found.warnings);
}

#[test]
fn a_workload_in_another_namespace_is_an_interface_target() {
    let fixture = Fixture::new();
    fixture.process(7, "nginx", "/system.slice/nginx.service", "other");
    for word in ["unit:nginx", "cgroup:/system.slice/nginx.service", "pid:7", "process:nginx"] {
        let found = resolve(&fixture, &[word]).unwrap();
        let workload = &found.workloads[0];
        assert_eq!(workload.cgroup, None, "{word}");
        assert!(workload.netns.ends_with("proc/7/ns/net"), "{}", workload.netns);
        assert!(found.warnings[0].contains("(1 process)"), "{:?}", found.warnings);
    }
}

#[test]
fn several_namespaces_in_one_cgroup_are_refused() {
    let fixture = Fixture::new();
    fixture.process(7, "a", "/app", "one");
    fixture.process(8, "b", "/app/child", "two");
    let error = resolve(&fixture, &["cgroup:app"]).unwrap_err().to_string();
    assert!(error.contains("several network namespaces"), "{error}");
    assert!(resolve(&fixture, &["cgroup:/app/child"]).is_ok());
}

#[test]
fn processes_of_one_name_are_one_workload_per_cgroup_or_namespace() {
    let fixture = Fixture::new();
    fixture.process(7, "worker", "/a", "host");
    fixture.process(8, "worker", "/a", "host");
    fixture.process(9, "worker", "/b", "host");
    fixture.process(10, "worker", "/b", "other");
    fixture.process(11, "idle", "/c", "host");
    let found = resolve(&fixture, &["process:worker"]).unwrap();
    assert_eq!(names(&found), ["process:worker[7]", "process:worker[9]", "process:worker[10]"]);
}

#[test]
fn a_long_process_name_is_cut_as_the_kernel_cuts_it() {
    let fixture = Fixture::new();
    fixture.process(7, "a-very-long-nam", "/a", "host");
    assert!(resolve(&fixture, &["process:a-very-long-name-indeed"]).is_ok());
}

#[test]
fn a_container_is_found_by_id_prefix_and_name() {
    let fixture = Fixture::new();
    let other = ID.replace("0123", "0124");
    fixture.process(7, "app", &format!("/kubepods/pod1/{ID}"), "pod");
    fixture.process(8, "app", &format!("/system.slice/docker-{other}.scope"), "host");
    fs::create_dir(fixture.path("docker").join(&other)).unwrap();
    fs::write(fixture.path("docker").join(&other).join("config.v2.json"), r#"{"Name":"/web"}"#)
        .unwrap();
    let too_short = resolve(&fixture, &["container:012"]).unwrap_err().to_string();
    assert!(too_short.contains("0123456789ab"), "{too_short}");
    assert_eq!(resolve(&fixture, &["container:0123"]).unwrap().workloads[0].cgroup, None);
    let by_name = resolve(&fixture, &["container:web"]).unwrap();
    assert!(by_name.workloads[0].cgroup.is_some());
    let both = ID.replace("89ab", "89ac");
    fixture.process(9, "app", &format!("/kubepods/pod2/{both}"), "pod2");
    let error = resolve(&fixture, &["container:0123"]).unwrap_err().to_string();
    assert!(error.contains("ambiguous"), "{error}");
}

#[test]
fn an_empty_cgroup_is_a_target_with_a_warning() {
    let fixture = Fixture::new();
    fixture.cgroup("/later");
    let found = resolve(&fixture, &["cgroup:/later"]).unwrap();
    assert!(found.workloads[0].cgroup.is_some());
    assert!(found.warnings[0].contains("no process yet"));
    let by_path = format!("cgroup:{}", fixture.path("cgroup/later").display());
    assert!(resolve(&fixture, &[&by_path]).unwrap().workloads[0].cgroup.is_some());
}

fn refused(fixture: &Fixture, word: &str, extra: &[&str]) -> Option<String> {
    let mut host = fixture.host();
    let mut found = Found::default();
    host.resolve_into(&word.parse().unwrap(), &mut found).unwrap();
    let extra: Vec<String> = extra.iter().map(|name| (*name).into()).collect();
    let protection = Protection::with(&extra);
    protection.check(&host, &found.workloads[0]).err().map(|e| e.to_string())
}

#[test]
fn protected_targets_are_refused_by_name() {
    let fixture = Fixture::new();
    fixture.process(1, "init", "/init.scope", "host");
    fixture.process(7, "sshd", "/system.slice/ssh.service", "host");
    fixture.process(8, "systemd-journal", "/system.slice/systemd-journald.service", "host");
    fixture.process(9, "nginx", "/system.slice/nginx.service", "host");
    fixture.process(10, "postgres", "/db", "host");
    fixture.process(std::process::id(), "test", "/tests/me", "host");
    fixture.process(12, "stray", "/", "host");
    for (word, who) in [
        ("unit:ssh.service", "sshd (pid 7)"),
        ("cgroup:/system.slice", "sshd (pid 7)"),
        ("unit:systemd-journald", "systemd-journal (pid 8)"),
        ("cgroup:/init.scope", "init (pid 1)"),
        ("cgroup:/tests", "test (pid"),
        ("pid:12", "root"),
        ("cgroup:/", "root"),
    ] {
        let text = refused(&fixture, word, &[]).unwrap_or_else(|| panic!("{word} was allowed"));
        assert!(text.contains(word) && text.contains(who), "{text}");
    }
    let error = resolve(&fixture, &["pid:1"]).unwrap_err().to_string();
    assert!(error.contains("pid 1 is init"), "{error}");
    assert_eq!(refused(&fixture, "unit:nginx", &[]), None);
    assert_eq!(refused(&fixture, "cgroup:/db", &[]), None);
    assert!(refused(&fixture, "cgroup:/db", &["postgres"]).is_some());
}

#[test]
fn the_hosts_own_namespace_is_no_interface_target() {
    let fixture = Fixture::new();
    fixture.named("host");
    fixture.named("init");
    fixture.named("web");
    fixture.process(1, "init", "/init.scope", "init");
    fixture.process(7, "sshd", "/web", "web");
    assert!(refused(&fixture, "netns:host", &[]).unwrap().contains("own network namespace"));
    assert!(refused(&fixture, "netns:init", &[]).is_some());
    assert_eq!(refused(&fixture, "netns:web", &[]), None, "a container's own sshd is its own");
    assert!(refused(&fixture, "netns:web", &["sshd"]).unwrap().contains("sshd (pid 7)"));
}

#[test]
fn without_v2_a_hierarchy_of_v1_names_cgroups() {
    let mut fixture = Fixture::new();
    fixture.v1 = Some("name=systemd".into());
    fixture.process(7, "nginx", "/system.slice/nginx.service", "host");
    fixture.process(8, "app", &format!("/docker/{ID}"), "other");
    let found = resolve(&fixture, &["unit:nginx", "pid:7", "container:0123", "pid:8"]).unwrap();
    assert_eq!(names(&found), ["unit:nginx.service", "container:0123"]);
    let places = found.workloads.iter().map(|one| one.place.clone().unwrap());
    let places: Vec<_> = places.map(|place| (place.cgroup.path, place.leader)).collect();
    let container = format!("/docker/{ID}");
    assert_eq!(places, [("/system.slice/nginx.service".to_owned(), 0), (container.clone(), 8)]);
    // Sockets have no cgroup of v1.
    let host = fixture.host();
    assert!(host.cgroup(&container).unwrap().is_some());
    assert_eq!(host.sockets(&container).unwrap(), None);
}
