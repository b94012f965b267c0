use chaos_user::engine::*; use chaos_user::plan::*; use std::collections::BTreeMap; use std::os::linux::fs::MetadataExt;
fn main() {
  let a: Vec<String> = std::env::args().collect();
  if a[1] == "load" { for r in load_report().unwrap() { println!("{r:?}"); } return; }
  if a[1] == "probe" { for r in probe::probe_all() { println!("{r:?}"); } return; }
  if a[1] == "sweep" { println!("{:?}", sweep()); return; }
  tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).init();
  let ns = format!("/run/netns/{}", a[1]);
  let effects: Effects = serde_json::from_str(&a[2]).unwrap();
  let dir = if a.get(4).map(|s| s == "in").unwrap_or(false) { Direction::Ingress } else { Direction::Egress };
  let rule = Rule { id: "r".into(), experiment: "e".into(), target: "t".into(), hook: Hook { device: Device { inode: std::fs::metadata(&ns).unwrap().st_ino(), netns: ns, name: "eth0".into() }, direction: dir, cgroup: None }, peers: Peers::default(), effects, describes: String::new(), declared: None, seed: 42, duration: None, dry_run: false };
  let t = std::time::Instant::now();
  let mut e = Engine::open(&Options::default()).unwrap(); println!("open {:?}", t.elapsed());
  let t = std::time::Instant::now();
  e.apply(&Plan { rules: vec![rule] }, &BTreeMap::new()).unwrap(); println!("apply {:?} path {}", t.elapsed(), e.report().unwrap()[0].path);
  let mut c = std::process::Command::new("bash").arg("-c").arg(&a[3]).spawn().unwrap();
  loop { e.beat().unwrap(); if let Some(_) = c.try_wait().unwrap() { break } std::thread::sleep(std::time::Duration::from_millis(200)); }
  println!("{:?}", e.report().unwrap()); let t = std::time::Instant::now(); e.recover(&|| false).unwrap(); println!("recover {:?}", t.elapsed());
}
