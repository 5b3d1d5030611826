//! A log of nine records, and damage to its files: up to six flipped bits, runs of zeros, cuts,
//! lost and swapped files, and writes that went to the wrong place. Six are fewer than it takes
//! to forge a record, its block's checksum and its batch's.
//!
//! The log is refused, with the place, or returns the records up to some point in the order of
//! writing; and all of them if it was closed and the mark of that is intact.

use schemas::ids::Partition;
use schemas::topics::Topic;

use crate::frames::{self, Block};
use crate::log::{Contents, Files, open};

const MAX_DAMAGES: usize = 6;
const DAMAGE_BYTES: usize = 8;

pub(crate) fn run(input: &[u8]) {
    let Some((flags, damages)) = input.split_first() else {
        return;
    };
    let (closed, write) = (flags & 1 != 0, flags & 2 != 0);
    let (whole, states) = log(closed);
    let mut files = whole.clone();
    for damage in damages.chunks_exact(DAMAGE_BYTES).take(MAX_DAMAGES) {
        apply_damage(&mut files, damage);
    }
    if may_become_a_log(&files) {
        return;
    }
    let read = open(&files, write);
    let [.., all] = &states[..] else {
        unreachable!("a log has a state after each batch");
    };
    if files == whole {
        assert_eq!(read.as_ref(), Some(all));
    }
    if let Some(read) = read {
        let marked = closed && files.get("clean") == whole.get("clean");
        let known = if marked {
            read == *all
        } else {
            states.contains(&read)
        };
        assert!(known, "read what was never written so: {read:?}");
    }
}

/// Whether there is only what an interrupted creation of a log leaves; a new one is created there,
/// so nothing is refused.
fn may_become_a_log(files: &Files) -> bool {
    let first = (frames::segment_name(1), frames::segment(1).len());
    files.iter().all(|(name, bytes)| {
        let empty = *name == first.0 && bytes.iter().skip(first.1).all(|byte| *byte == 0);
        name == "clean" || empty
    })
}

/// A log of nine batches of a record each, over three segments, and its contents before the
/// first and after each.
fn log(closed: bool) -> (Files, Vec<Contents>) {
    let mut files = Files::from([("meta".to_owned(), frames::meta(crate::log::PARTITIONS))]);
    let mut contents = Contents::new();
    let mut states = vec![contents.clone()];
    let (mut previous, mut sequence) = (0, 1);
    for number in 1..=3 {
        let mut segment = frames::segment(number);
        for _ in 0..3 {
            let n = sequence as usize;
            let topic = Topic::ALL[n % 2];
            let partition = Partition((n / 2 % 2) as u32);
            let known: &mut Vec<_> = contents.entry((topic, partition)).or_default();
            let block = Block {
                topic,
                partition,
                base: known.len() as i64,
                at_ms: 1_000 + n as i64 / 3,
                records: vec![frames::record(n, 4, n * 7 % 50, n % 3)],
            };
            known.extend(block.read());
            let (batch, checksum) = frames::batch(sequence, previous, &[block], &[]);
            segment.extend(batch);
            (previous, sequence) = (checksum, sequence + 1);
            states.push(contents.clone());
        }
        segment.resize(segment.len() + 64, 0);
        files.insert(frames::segment_name(number), segment);
    }
    let mut ahead = frames::segment(4);
    ahead.resize(256, 0);
    files.insert(frames::segment_name(4), ahead);
    if closed {
        files.insert("clean".to_owned(), frames::clean(sequence, previous));
    }
    (files, states)
}

/// Eight bytes define the damage: its kind, file, place, length and value.
fn apply_damage(files: &mut Files, damage: &[u8]) {
    let names: Vec<String> = files.keys().cloned().collect();
    if names.is_empty() {
        return;
    }
    let name = |at: usize| names[usize::from(damage[at]) % names.len()].clone();
    let number = |at: usize| usize::from(u16::from_le_bytes([damage[at], damage[at + 1]]));
    let (file, other) = (name(1), name(2));
    let bytes = files.get_mut(&file).expect("the name is one of the files'");
    let at = number(4) % (bytes.len() + 1);
    let end = (at + number(6)).min(bytes.len());
    match damage[0] % 7 {
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << (damage[3] % 8);
            }
        }
        1 => bytes[at..end].fill(0),
        2 => bytes.truncate(at),
        3 => bytes.resize(bytes.len() + at, 0),
        4 => _ = files.remove(&file),
        5 => {
            let bytes = bytes.clone();
            let swapped = files.insert(other, bytes);
            files.insert(file, swapped.expect("the other name is a file's too"));
        }
        _ => {
            let stray = bytes[at..end].to_vec();
            let from = usize::from(damage[3]) * 8;
            let target = files
                .get_mut(&other)
                .expect("the other name is a file's too");
            let room = target.iter_mut().skip(from);
            room.zip(stray).for_each(|(to, stray)| *to = stray);
        }
    }
}
