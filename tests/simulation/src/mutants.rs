//! Bugs put into the real code, one at a time, to show that the simulation finds them. They are
//! listed in `mutants.toml`. Each is built in a copy of the workspace, and seeds run until one
//! fails.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};

use anyhow::{Context, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use runtime::output::Output;
use serde::Deserialize;

/// The list.
const LIST: &str = include_str!("../mutants.toml");
/// Every mutant runs on the same seeds.
const FIRST_SEED: u64 = 1;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    mutant: Vec<Mutant>,
}

/// A bug.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutant {
    /// What it breaks.
    name: String,
    /// The file, from the workspace's root.
    file: PathBuf,
    /// The text to replace, which occurs once.
    find: String,
    /// The replacement.
    replace: String,
}

/// Builds and runs the unchanged code, which must hold, and then the mutants whose name contains
/// `only`, each on at most `seeds` seeds. Returns whether all were caught.
pub fn run(output: &mut Output, only: &str, seeds: u64) -> anyhow::Result<bool> {
    let mutants = toml::from_str::<List>(LIST)?.mutant;
    let root = workspace()?;
    let copy = root.join("target/mutants/workspace");
    copy_workspace(&root, &copy)?;
    let chosen: Vec<_> = mutants
        .iter()
        .filter(|mutant| mutant.name.contains(only))
        .collect();
    let bar = ProgressBar::new(chosen.len() as u64 + 1);
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}");
    bar.set_style(style.context("the template is valid")?);
    output.line("| mutant | caught by seed | what did not hold |\n|---|---|---|");
    bar.set_message("the unchanged code");
    let holds = try_seeds(&copy, &root, seeds)?;
    ensure!(
        holds.status.success(),
        "the unchanged code fails:\n{}",
        text(&holds)
    );
    bar.inc(1);
    let mut missed = 0;
    for mutant in chosen {
        bar.set_message(mutant.name.clone());
        let file = copy.join(&mutant.file);
        let original =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let found = original.matches(&mutant.find).count();
        ensure!(
            found == 1,
            "{}: the text to replace occurs {found} times in {} instead of once; update mutants.toml",
            mutant.name,
            mutant.file.display()
        );
        fs::write(&file, original.replacen(&mutant.find, &mutant.replace, 1))?;
        let tried = try_seeds(&copy, &root, seeds);
        fs::write(&file, original)?;
        let tried = tried?;
        let found = text(&tried);
        let mut lines = found.lines();
        let row = match (tried.status.success(), lines.next()) {
            (true, _) => {
                missed += 1;
                format!("| {} | **not caught** | |", mutant.name)
            }
            (false, Some(first)) => {
                let seed = first.split_whitespace().nth(1).unwrap_or("?");
                let what: String = lines.next().unwrap_or("").trim().chars().take(90).collect();
                format!(
                    "| {} | {seed} | {} |",
                    mutant.name,
                    what.replace('|', "\\|")
                )
            }
            (false, None) => bail!("{}: the run failed without output", mutant.name),
        };
        bar.suspend(|| output.line(row));
        bar.inc(1);
    }
    bar.finish_and_clear();
    output.line(format_args!("\n{missed} not caught within {seeds} seeds"));
    Ok(missed == 0)
}

/// Builds the copy and runs seeds on it. The build is incremental and hardly optimised, because
/// each mutant runs for seconds only.
fn try_seeds(copy: &Path, root: &Path, seeds: u64) -> anyhow::Result<process::Output> {
    let built = Command::new("cargo")
        .args(["build", "--quiet", "--package", "simulation"])
        .args([
            "--config",
            "profile.dev.opt-level=1",
            "--config",
            "profile.dev.debug=false",
        ])
        .current_dir(copy)
        .env("CARGO_TARGET_DIR", root.join("target/mutants/target"))
        .output()
        .context("cannot run cargo")?;
    ensure!(
        built.status.success(),
        "the copy does not build:\n{}",
        String::from_utf8_lossy(&built.stderr)
    );
    let program = root.join("target/mutants/target/debug/simulate");
    let mut command = Command::new(program);
    command.args([
        "seeds",
        "--as-found",
        "--from",
        &FIRST_SEED.to_string(),
        "--count",
        &seeds.to_string(),
    ]);
    command.output().context("cannot run the simulation")
}

fn text(output: &process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn workspace() -> anyhow::Result<PathBuf> {
    let found = Command::new("cargo")
        .args(["locate-project", "--workspace", "--message-format", "plain"])
        .output()?;
    let manifest = String::from_utf8(found.stdout)?;
    let root = Path::new(manifest.trim())
        .parent()
        .filter(|_| found.status.success());
    Ok(root.context("run it within the workspace")?.to_owned())
}

/// Copies every file of the git work tree. An unchanged one is not written again, so that it is
/// not built again.
fn copy_workspace(root: &Path, copy: &Path) -> anyhow::Result<()> {
    let known = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("cannot run git")?;
    for name in String::from_utf8(known.stdout)?.lines() {
        let (from, to) = (root.join(name), copy.join(name));
        let Ok(bytes) = fs::read(&from) else { continue };
        if fs::read(&to).is_ok_and(|existing| existing == bytes) {
            continue;
        }
        fs::create_dir_all(to.parent().context("every file is in a directory")?)?;
        fs::write(&to, bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_every_mutant_occurs_once() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let list = toml::from_str::<List>(LIST).unwrap();
        let moved: Vec<_> = list
            .mutant
            .iter()
            .filter(|mutant| {
                let text = fs::read_to_string(root.join(&mutant.file)).unwrap_or_default();
                text.matches(&mutant.find).count() != 1
            })
            .map(|mutant| &mutant.name)
            .collect();
        assert!(moved.is_empty(), "update mutants.toml: {moved:?}");
    }
}
