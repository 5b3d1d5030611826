//! The processes of an engine.

use std::fs;

use rustix::process::Pid;

/// A process and all its descendants. A server such as PostgreSQL has one a connection.
pub fn with_children(root: Pid) -> Vec<Pid> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        // Processes come and go while they are looked at.
        let tasks = fs::read_dir(format!("/proc/{pid}/task"));
        let children = tasks.into_iter().flatten().flatten().map(|task| {
            let path = task.path().join("children");
            fs::read_to_string(path).unwrap_or_default()
        });
        let children: String = children.collect();
        let pids = children
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok());
        found.extend(pids.filter_map(Pid::from_raw));
        next += 1;
    }
    found
}
