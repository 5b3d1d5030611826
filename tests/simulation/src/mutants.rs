//! Bugs put into the real code, one at a time, to show that the simulation finds them. The list
//! is `mutants.toml`; each is built in a copy of the workspace, and seeds are run until one
//! fails.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;

/// The list.
const LIST: &str = include_str!("../mutants.toml");
/// Every mutant meets the same seeds.
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
    /// What stands there, once.
    find: String,
    /// What takes its place.
    replace: String,
}

/// Builds and runs the mutants whose name has `only` in it, each with so many seeds at most, and
/// the code as it is. Whether all were caught, and the code as it is holds.
pub fn run(only: &str, seeds: u64) -> anyhow::Result<bool> {
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
    println!("| mutant | caught by seed | what did not hold |\n|---|---|---|");
    bar.set_message("the code as it is");
    let holds = try_seeds(&copy, &root, seeds)?;
    ensure!(
        holds.status.success(),
        "the code as it is fails:\n{}",
        text(&holds)
    );
    bar.inc(1);
    let mut missed = 0;
    for mutant in chosen {
        bar.set_message(mutant.name.clone());
        let place = copy.join(&mutant.file);
        let as_it_is = fs::read_to_string(&place)
            .with_context(|| format!("cannot read {}", place.display()))?;
        let found = as_it_is.matches(&mutant.find).count();
        ensure!(
            found == 1,
            "{}: what is to be replaced stands {found} times in {}; bring mutants.toml up to date",
            mutant.name,
            mutant.file.display()
        );
        fs::write(&place, as_it_is.replacen(&mutant.find, &mutant.replace, 1))?;
        let tried = try_seeds(&copy, &root, seeds);
        fs::write(&place, as_it_is)?;
        let tried = tried?;
        let said = text(&tried);
        let mut lines = said.lines();
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
            (false, None) => bail!("{}: the run said nothing", mutant.name),
        };
        bar.suspend(|| println!("{row}"));
        bar.inc(1);
    }
    bar.finish_and_clear();
    println!("\n{missed} not caught within {seeds} seeds");
    Ok(missed == 0)
}

/// Runs seeds on the copy, which is built first: with little optimisation and what was built
/// before, since each mutant is run for seconds only.
fn try_seeds(copy: &Path, root: &Path, seeds: u64) -> anyhow::Result<Output> {
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
        "it does not build:\n{}",
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

fn text(output: &Output) -> String {
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

/// Copies every file that git knows of, as it is now. One that is there already and the same is
/// left, so that it is not built again.
fn copy_workspace(root: &Path, copy: &Path) -> anyhow::Result<()> {
    let known = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("cannot run git")?;
    for name in String::from_utf8(known.stdout)?.lines() {
        let (from, to) = (root.join(name), copy.join(name));
        let Ok(bytes) = fs::read(&from) else { continue };
        if fs::read(&to).is_ok_and(|there| there == bytes) {
            continue;
        }
        fs::create_dir_all(to.parent().context("every file is in a directory")?)?;
        fs::write(&to, bytes)?;
    }
    Ok(())
}
