//! Files that were changed after they were written.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{BATCH, apply_batch, attempt, check};
use ports::ReadStore;
use ports::read_store::{Progress, Row};
use redb::{Database, TableDefinition};
use schemas::ids::{Offset, Partition};
use store_embedded::{EmbeddedStore, OpenError};

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const BATCHES: i64 = 30;

/// A store of one partition, closed.
async fn written(directory: &Path) -> PathBuf {
    let path = directory.join("read.redb");
    let store = EmbeddedStore::open(&path).unwrap();
    for batch in 0..BATCHES {
        apply_batch(&store, 0, batch).await;
    }
    store.close().unwrap();
    drop(store);
    path
}

/// A changed file must be refused with an explanation, or hold one consistent state: some bytes of a
/// file are unused.
async fn refused_or_consistent(path: &Path, what: &str) -> bool {
    match EmbeddedStore::open(path) {
        Ok(store) => {
            let found = check(&store)
                .await
                .unwrap_or_else(|e| panic!("{what}: {e}"));
            let next = found.get(&0).copied().unwrap_or(0);
            assert!([0, BATCHES * BATCH].contains(&next), "{what}: {next}");
            false
        }
        Err(OpenError::Damaged { path: named, .. }) => {
            assert_eq!(named, path, "{what}");
            true
        }
        Err(other) => panic!("{what}: {other}"),
    }
}

#[tokio::test]
async fn a_flipped_byte_is_refused_or_without_effect() {
    let directory = tempfile::tempdir().unwrap();
    let path = written(directory.path()).await;
    let whole = fs::read(&path).unwrap();
    // Every byte of the file's header, some bytes of every page in use, and every other byte around
    // a row.
    let mut positions: Vec<usize> = (0..320).collect();
    for page in 0..whole.len() / 4096 {
        let page = page * 4096;
        if whole[page..page + 4096].iter().any(|byte| *byte != 0) {
            positions.extend([0, 1, 5, 40, 2_000].map(|byte| page + byte));
        }
    }
    let row = whole
        .windows(8)
        .rposition(|bytes| bytes == b"product ")
        .unwrap();
    positions.extend((row - 64..row + 64).step_by(2));
    let flipped = directory.path().join("flipped.redb");
    let mut refused = 0;
    for position in &positions {
        let mut bytes = whole.clone();
        bytes[*position] ^= 0x21;
        fs::write(&flipped, bytes).unwrap();
        refused += usize::from(refused_or_consistent(&flipped, &format!("byte {position}")).await);
    }
    assert!(
        refused > positions.len() / 4,
        "{refused} of {} flips were refused",
        positions.len()
    );
}

#[tokio::test]
async fn a_flipped_byte_of_a_row_is_refused_and_the_file_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = written(directory.path()).await;
    // After a clean end the file has one state only, so this row is either served or missed.
    let row = attempt(0, 7).attempt_id;
    let mut bytes = fs::read(&path).unwrap();
    let rows: Vec<usize> = (0..bytes.len() - 16)
        .filter(|at| &bytes[*at..at + 16] == row.as_bytes().as_slice())
        .collect();
    assert!(!rows.is_empty());
    for at in rows {
        bytes[at + 5] ^= 1;
    }
    fs::write(&path, bytes).unwrap();
    let refused = EmbeddedStore::open(&path)
        .err()
        .expect("damaged rows must not be served");
    let text = refused.to_string();
    assert!(
        text.contains("read.redb") && text.contains("delete the file"),
        "{text}"
    );
    assert!(text.contains("rebuilt from the log"), "{text}");
    // The message's advice works: without the file, a new one is created.
    fs::remove_file(&path).unwrap();
    assert!(
        check(&EmbeddedStore::open(&path).unwrap())
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_cut_file_is_refused_or_consistent() {
    let directory = tempfile::tempdir().unwrap();
    let path = written(directory.path()).await;
    let whole = fs::read(&path).unwrap();
    let cut = directory.path().join("cut.redb");
    let ends = [
        0,
        1,
        8,
        9,
        63,
        64,
        319,
        320,
        4_095,
        4_096,
        4_097,
        whole.len() - 1,
    ];
    for length in ends
        .into_iter()
        .chain((0..whole.len()).step_by(whole.len() / 40))
    {
        fs::write(&cut, &whole[..length]).unwrap();
        refused_or_consistent(&cut, &format!("cut at {length}")).await;
    }
}

#[test]
fn a_file_of_another_kind_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("text");
    fs::write(&text, "These are my holiday notes. ".repeat(400)).unwrap();
    let foreign = directory.path().join("foreign.redb");
    drop(Database::create(&foreign).unwrap());
    for path in [text, foreign] {
        let refused = EmbeddedStore::open(&path).err();
        assert!(
            matches!(refused, Some(OpenError::Damaged { .. })),
            "{path:?} {refused:?}"
        );
        assert!(
            path.exists(),
            "{path:?} must be left for its owner to delete"
        );
    }
    let nowhere = directory.path().join("no/such/directory/read.redb");
    let refused = EmbeddedStore::open(&nowhere).err();
    assert!(matches!(refused, Some(OpenError::Io { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_newer_format_is_refused_and_an_older_one_rebuilt() {
    let directory = tempfile::tempdir().unwrap();
    let path = written(directory.path()).await;
    // Sets the format, and returns the previous one.
    let set_format = |format: u64| {
        let file = Database::open(&path).unwrap();
        let transaction = file.begin_write().unwrap();
        let mut meta = transaction.open_table(META).unwrap();
        let before = meta.insert("format", format).unwrap().unwrap().value();
        drop(meta);
        transaction.commit().unwrap();
        before
    };
    // Higher than the format of any version.
    let current = set_format(1_000);
    for opened in [EmbeddedStore::open(&path), EmbeddedStore::open_copy(&path)] {
        let refused = opened.err().expect("a newer format must be refused");
        assert!(
            matches!(refused, OpenError::FutureFormat { found: 1_000, .. }),
            "{refused:?}"
        );
        let text = refused.to_string();
        assert!(
            text.contains("read.redb") && text.contains("format 1000"),
            "{text}"
        );
    }
    set_format(current);
    assert_eq!(
        check(&EmbeddedStore::open(&path).unwrap()).await.unwrap()[&0],
        BATCHES * BATCH
    );
    set_format(current - 1);
    let store = EmbeddedStore::open(&path).unwrap();
    assert!(
        check(&store).await.unwrap().is_empty(),
        "a file of an older format is emptied"
    );
    apply_batch(&store, 0, 0).await;
    drop(store);
    assert_eq!(
        check(&EmbeddedStore::open(&path).unwrap()).await.unwrap()[&0],
        BATCH
    );
}

#[tokio::test]
async fn a_copy_takes_no_writes_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let path = written(directory.path()).await;
    // The original may be open at the same time, in this process or another.
    let store = EmbeddedStore::open(&path).unwrap();
    let copy = EmbeddedStore::open_copy(&path).unwrap();
    assert_eq!(check(&copy).await.unwrap()[&0], BATCHES * BATCH);
    let progress = Progress {
        next: Offset(1),
        claim: Offset(0),
        answered: Offset(0),
        log: None,
    };
    let rows = vec![Row::Attempt(attempt(0, 0))];
    assert!(
        copy.apply(Partition(0), rows.clone(), progress)
            .await
            .is_err()
    );
    copy.close().unwrap();

    store.close().unwrap();
    store.close().unwrap();
    let refused = store.apply(Partition(0), rows, progress).await;
    assert!(refused.unwrap_err().to_string().contains("closed"));
    assert_eq!(
        check(&store).await.unwrap()[&0],
        BATCHES * BATCH,
        "reads still work"
    );
}
