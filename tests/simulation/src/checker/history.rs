//! What happened, read from the two topics: the decisions that count, in their order, each with
//! the command it answers.

use std::collections::{BTreeMap, BTreeSet};

use schemas::codec::{Codec, chain_hash};
use schemas::command::{Command, CommandBody};
use schemas::decision::{Decision, DecisionRecord, Event};
use schemas::ids::{AttemptId, Offset, Partition, ProductId};

use super::LOGS;
use super::account::{Account, AttemptOutcome};
use crate::world::EndState;

/// What happened.
pub struct History {
    /// The decisions that count, by partition and the offset that they answer; none in place of a
    /// skipped record that counts.
    pub decisions: BTreeMap<Partition, Vec<Option<Decision>>>,
    /// The commands in `purchase-attempts`, by partition and offset; none in place of garbage.
    pub commands: BTreeMap<Partition, Vec<Option<Command>>>,
    /// Each product at the end.
    pub products: BTreeMap<ProductId, Account>,
    /// Each attempt's outcomes, from first to last.
    pub outcomes: BTreeMap<AttemptId, Vec<AttemptOutcome>>,
    /// The rules that were broken.
    pub violations: Vec<String>,
}

impl History {
    /// Reads both topics; fails when a record cannot be decoded.
    pub fn read(codec: &Codec, end: &EndState) -> Result<Self, String> {
        let mut history = Self {
            decisions: BTreeMap::new(),
            commands: BTreeMap::new(),
            products: BTreeMap::new(),
            outcomes: BTreeMap::new(),
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
        let (attempts, decisions) = (
            &end.records[&(LOGS.0, partition)],
            &end.records[&(LOGS.1, partition)],
        );
        // What cannot be decoded is what the plan has appended: other damage is found by itself.
        let commands: Vec<_> = attempts
            .iter()
            .map(|record| codec.decode_command(&record.value).ok())
            .collect();
        let mut counting = Vec::new();
        let mut result = Ok(());
        let (mut claim, mut claims) = (Offset(-1), BTreeSet::new());
        for record in decisions {
            let Ok(decoded) = codec.decode_decision(&record.value) else {
                continue;
            };
            let decision = match decoded {
                DecisionRecord::Claim(_) => {
                    claim = record.offset;
                    claims.insert(claim);
                    continue;
                }
                DecisionRecord::Decision(decision) => decision,
                DecisionRecord::Skipped(skipped) => {
                    let next = Offset(counting.len() as i64);
                    let counts = skipped.claim == claim
                        && skipped.answers == next
                        && skipped.follows == Offset(next.0 - 1);
                    if !counts {
                        continue;
                    }
                    if !matches!(commands.get(next.0 as usize), Some(None)) {
                        let at = record.offset;
                        result = result.and(Err(format!("{at} skips {next}, which is a command")));
                    }
                    counting.push(None);
                    continue;
                }
            };
            // A decision counts only under the current claim, and only if it is the next one.
            let answers = Offset(counting.len() as i64);
            let follows = Offset(answers.0 - 1);
            if decision.claim != claim || decision.answers != answers || decision.follows != follows
            {
                if result.is_ok() && !claims.contains(&decision.claim) {
                    result = Err(format!(
                        "{} names a claim that was never made",
                        record.offset
                    ));
                }
                continue;
            }
            let Some(answered) = attempts.get(answers.0 as usize) else {
                result = result.and(Err(format!(
                    "{} answers a record that does not exist",
                    record.offset
                )));
                break;
            };
            let Some(command) = &commands[answers.0 as usize] else {
                let at = record.offset;
                result = result.and(Err(format!("{at} decides on {answers}, which is garbage")));
                break;
            };
            let account = self
                .products
                .entry(decision.product_id.clone())
                .or_default();
            let chain = chain_hash(&record.value, account.chain);
            let taken = account.take(
                command,
                answered.appended_at_ms,
                record.offset,
                &decision,
                chain,
            );
            if result.is_ok() {
                result = taken
                    .map_err(|why| format!("decision at {}, on {answers}: {why}", record.offset));
            }
            for (attempt, outcome) in account.outcomes_of(partition, record.offset, &decision) {
                self.outcomes.entry(attempt).or_default().push(outcome);
            }
            counting.push(Some(decision));
        }
        // Records that arrived during the last reads may be undecided.
        let due = end
            .settled
            .get(&(LOGS.0, partition))
            .map_or(commands.len(), |end| end.0 as usize);
        if result.is_ok() && counting.len() < due {
            result = Err(format!(
                "only {} of {due} records have a decision that counts",
                counting.len()
            ));
        }
        self.decisions.insert(partition, counting);
        self.commands.insert(partition, commands);
        Ok(result.and(self.check_outcomes(partition)))
    }

    /// Every attempt has one outcome, in one round, unless it was made for another round or found no
    /// sale.
    fn check_outcomes(&self, partition: Partition) -> Result<(), String> {
        let decisions = &self.decisions[&partition];
        for (command, decision) in self.commands[&partition].iter().zip(decisions) {
            let (Some(command), Some(decision)) = (command, decision) else {
                continue;
            };
            if let CommandBody::PlaceAttempt(place) = &command.body {
                let outcomes = self
                    .outcomes
                    .get(&place.attempt_id)
                    .map_or(&[][..], Vec::as_slice);
                let first = |outcome: &&AttemptOutcome| outcome.is_first();
                let rounds: Vec<_> = outcomes
                    .iter()
                    .filter(first)
                    .map(|outcome| outcome.round)
                    .collect();
                let is_of_another = |event: &Event| matches!(event, Event::AttemptRefused(refused) if !refused.is_outcome());
                let of_another = decision.events.iter().any(is_of_another);
                let of_none = of_another || !decision.leaves_state();
                if rounds.len() > 1 || (rounds.is_empty() && !of_none) {
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
