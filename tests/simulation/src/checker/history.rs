//! What the two logs say happened: the decisions that count, in their order, each with the
//! command it answers.

use std::collections::{BTreeMap, BTreeSet};

use schemas::codec::{Codec, chain_hash};
use schemas::command::{Command, CommandBody};
use schemas::decision::{Decision, DecisionRecord};
use schemas::ids::{AttemptId, Offset, Partition, ProductId};

use super::LOGS;
use super::account::{Account, Fate};
use crate::world::EndState;

/// What happened.
pub struct History {
    /// The decisions that count, by partition, in their order.
    pub decisions: BTreeMap<Partition, Vec<Decision>>,
    /// The commands of log 1, by partition and offset.
    pub commands: BTreeMap<Partition, Vec<Command>>,
    /// Each product as it ended.
    pub products: BTreeMap<ProductId, Account>,
    /// What became of each attempt, from its first outcome to its last, of all rounds.
    pub fates: BTreeMap<AttemptId, Vec<Fate>>,
    /// What does not hold.
    pub violations: Vec<String>,
}

impl History {
    /// Reads both logs; fails when a record cannot be read.
    pub fn read(codec: &Codec, end: &EndState) -> Result<Self, String> {
        let mut history = Self {
            decisions: BTreeMap::new(),
            commands: BTreeMap::new(),
            products: BTreeMap::new(),
            fates: BTreeMap::new(),
            violations: Vec::new(),
        };
        for partition in (0..end.partitions).map(Partition) {
            if let Err(why) = history.read_partition(codec, end, partition)? {
                history
                    .violations
                    .push(format!("partition {partition}: {why}"));
            }
        }
        Ok(history)
    }

    fn read_partition(
        &mut self,
        codec: &Codec,
        end: &EndState,
        partition: Partition,
    ) -> Result<Result<(), String>, String> {
        let (first, second) = (
            &end.records[&(LOGS.0, partition)],
            &end.records[&(LOGS.1, partition)],
        );
        let decode = |value: &[u8]| codec.decode_command(value).map_err(|e| e.to_string());
        let commands: Vec<_> = first
            .iter()
            .map(|r| decode(&r.value))
            .collect::<Result<_, _>>()?;
        let mut counting = Vec::new();
        let mut said = Ok(());
        let (mut claim, mut claims) = (Offset(-1), BTreeSet::new());
        for record in second {
            let decision = match codec
                .decode_decision(&record.value)
                .map_err(|e| e.to_string())?
            {
                DecisionRecord::Claim(_) => {
                    claim = record.offset;
                    claims.insert(claim);
                    continue;
                }
                DecisionRecord::Decision(decision) => decision,
            };
            // A decision counts under the current claim alone, and when it is the next one.
            let turn = Offset(counting.len() as i64);
            let follows = Offset(turn.0 - 1);
            if decision.claim != claim || decision.answers != turn || decision.follows != follows {
                if said.is_ok() && !claims.contains(&decision.claim) {
                    said = Err(format!(
                        "{} names a claim that was never made",
                        record.offset
                    ));
                }
                continue;
            }
            let Some(asked) = first.get(turn.0 as usize) else {
                said = said.and(Err(format!(
                    "{} answers what was never asked",
                    record.offset
                )));
                break;
            };
            let command = &commands[turn.0 as usize];
            let account = self
                .products
                .entry(decision.product_id.clone())
                .or_default();
            let chain = chain_hash(&record.value, account.chain);
            let taken = account.take(
                command,
                asked.appended_at_ms,
                record.offset,
                &decision,
                chain,
            );
            if said.is_ok() {
                said =
                    taken.map_err(|why| format!("decision at {}, on {turn}: {why}", record.offset));
            }
            for (attempt, fate) in account.fates_of(partition, record.offset, &decision) {
                self.fates.entry(attempt).or_default().push(fate);
            }
            counting.push(decision);
        }
        // What came while the last questions were asked may still wait.
        let due = end
            .settled
            .get(&(LOGS.0, partition))
            .map_or(commands.len(), |end| end.0 as usize);
        if said.is_ok() && counting.len() < due {
            said = Err(format!(
                "only {} of {due} records have a decision that counts",
                counting.len()
            ));
        }
        self.decisions.insert(partition, counting);
        self.commands.insert(partition, commands);
        Ok(said.and(self.check_outcomes(partition)))
    }

    /// Every attempt that was asked for has an outcome, and only one in a round.
    fn check_outcomes(&self, partition: Partition) -> Result<(), String> {
        let answered = self.decisions[&partition].len();
        for command in self.commands[&partition].iter().take(answered) {
            if let CommandBody::PlaceAttempt(place) = &command.body {
                let fates = self
                    .fates
                    .get(&place.attempt_id)
                    .map_or(&[][..], Vec::as_slice);
                let first = |fate: &&Fate| fate.is_first();
                let rounds: Vec<_> = fates.iter().filter(first).map(|fate| fate.round).collect();
                let distinct: BTreeSet<_> = rounds.iter().collect();
                if rounds.is_empty() || distinct.len() != rounds.len() {
                    let attempt = place.attempt_id;
                    return Err(format!(
                        "attempt {attempt} has {} outcomes, in rounds {rounds:?}",
                        rounds.len()
                    ));
                }
            }
        }
        Ok(())
    }
}
