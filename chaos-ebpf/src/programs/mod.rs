//! Entry points. Each is reached through an entry program that userspace generates per hook
//! point: it writes the slot number into `cb[0]` and jumps here.

mod cgroup;
mod dns;
mod line;
mod refuse;
mod tc;
