//! A log by another writer, with valid checksums over any contents.
//!
//! The input is a script: blocks and records, batches and segments, and false statements about
//! them. A log without a false statement is read exactly as the script wrote it. Any other is
//! refused, with the place, or read without gaps, in the same way however it is opened, and can be
//! appended to.

use schemas::ids::Partition;
use schemas::topics::Topic;

use crate::frames::{self, Block, Lie};
use crate::log::{Contents, Files, PARTITIONS, open};

/// So that an input is read within milliseconds.
const MAX_SEGMENTS: u32 = 8;

pub(crate) fn run(input: &[u8]) {
    let Some((flags, script)) = input.split_first() else {
        return;
    };
    let (files, honest) = Script::read(script);
    let read = open(&files, *flags != 0);
    if let Some(contents) = honest {
        assert_eq!(read, Some(contents));
    }
}

/// What a script has written so far.
struct Script {
    files: Files,
    segments: u32,
    segment: Vec<u8>,
    /// Whether a segment was ended before it had a batch; then none may come.
    left_empty: bool,
    sequence: u64,
    previous: u32,
    blocks: Vec<Block>,
    lies: Vec<Lie>,
    contents: Contents,
    honest: bool,
}

impl Script {
    /// The files of a script, and their records if nothing in them is false.
    fn read(input: &[u8]) -> (Files, Option<Contents>) {
        let mut input = Input(input);
        let mut script = Self {
            files: Files::new(),
            segments: 1,
            segment: frames::segment(1),
            left_empty: false,
            sequence: 1,
            previous: 0,
            blocks: Vec::new(),
            lies: Vec::new(),
            contents: Contents::new(),
            honest: true,
        };
        let partitions = match input.byte() {
            0 => u32::from_le_bytes([0; 4].map(|_: u8| input.byte())),
            _ => PARTITIONS,
        };
        let closed = input.byte() % 3;
        script.honest &= partitions == PARTITIONS;
        script
            .files
            .insert("meta".to_owned(), frames::meta(partitions));
        while !input.0.is_empty() {
            script.step(&mut input);
        }
        script.end_segment();
        script.end_segment();
        if closed > 0 {
            let lie = u64::from(closed - 1);
            script.honest &= lie == 0;
            let clean = frames::clean(script.sequence + lie, script.previous);
            script.files.insert("clean".to_owned(), clean);
        }
        let Self {
            files,
            contents,
            honest,
            ..
        } = script;
        (files, honest.then_some(contents))
    }

    fn step(&mut self, input: &mut Input) {
        match input.byte() % 8 {
            0 | 1 => self.block(input),
            2 | 3 => self.record(input),
            4 => self.end_batch(),
            5 => {
                let (at, count) = (usize::from(input.byte()), usize::from(input.byte() % 9));
                let bytes = (0..count).map(|_| input.byte()).collect();
                self.lies.push(Lie { at, bytes });
                self.honest = false;
            }
            6 if self.segments < MAX_SEGMENTS => self.end_segment(),
            _ => {
                self.end_batch();
                let count = usize::from(input.byte() % 64);
                self.segment.extend((0..count).map(|_| input.byte()));
                self.honest = false;
            }
        }
    }

    /// A block of a topic's partition that the batch has none of yet.
    fn block(&mut self, input: &mut Input) {
        let slot = input.byte();
        let topic = Topic::ALL[usize::from(slot) % 3];
        let partition = Partition(u32::from(slot / 3) % PARTITIONS);
        let is_it = |block: &Block| (block.topic, block.partition) == (topic, partition);
        if self.blocks.iter().any(is_it) {
            return;
        }
        let known = self.contents.get(&(topic, partition));
        self.blocks.push(Block {
            topic,
            partition,
            base: known.map_or(0, |records| records.len() as i64),
            at_ms: self.sequence as i64,
            records: Vec::new(),
        });
    }

    /// A record of the block that was begun last.
    fn record(&mut self, input: &mut Input) {
        let (n, key, headers) = (input.byte(), input.byte() % 16, input.byte() % 4);
        let value = usize::from(input.byte());
        if let Some(block) = self.blocks.last_mut() {
            let record = frames::record(n.into(), key.into(), value, headers.into());
            block.records.push(record);
        }
    }

    fn end_batch(&mut self) {
        let (blocks, lies) = (
            std::mem::take(&mut self.blocks),
            std::mem::take(&mut self.lies),
        );
        if blocks.is_empty() {
            return;
        }
        self.honest &= !self.left_empty;
        let (batch, checksum) = frames::batch(self.sequence, self.previous, &blocks, &lies);
        self.segment.extend(batch);
        (self.sequence, self.previous) = (self.sequence + 1, checksum);
        for block in blocks.iter().filter(|block| !block.records.is_empty()) {
            let known = self.contents.entry((block.topic, block.partition));
            known.or_default().extend(block.read());
        }
    }

    fn end_segment(&mut self) {
        self.end_batch();
        self.left_empty |= self.segment.len() == frames::HEADER;
        self.segment
            .resize(self.segment.len().next_multiple_of(8) + 64, 0);
        let name = frames::segment_name(self.segments);
        self.segments += 1;
        let next = frames::segment(self.segments);
        self.files
            .insert(name, std::mem::replace(&mut self.segment, next));
    }
}

/// An input read byte by byte; zeros follow its end.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or(0)
    }
}
