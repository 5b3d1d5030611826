//! Every stored input passes its target: the seeds, from which fuzzing starts, and the findings,
//! each of which once showed a bug.

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use fuzz::{TARGETS, Target};

/// The stored inputs of a target in a folder, by name.
fn kept(folder: &str, target: &Target) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(folder)
        .join(target.name);
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn every_stored_input_passes_its_target() {
    let mut failed = Vec::new();
    for target in &TARGETS {
        let seeds = kept("seeds", target);
        assert!(!seeds.is_empty(), "the target {} has no seeds", target.name);
        for path in seeds.into_iter().chain(kept("findings", target)) {
            let input = fs::read(&path).unwrap();
            if catch_unwind(|| (target.run)(&input)).is_err() {
                failed.push(path);
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn every_stored_input_has_a_target() {
    for folder in ["seeds", "findings"] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        for entry in fs::read_dir(dir).unwrap() {
            let name = entry.unwrap().file_name();
            let known = TARGETS.iter().any(|target| *target.name == *name);
            assert!(known, "{folder}/{} has no target", name.display());
        }
    }
}
