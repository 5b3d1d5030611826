use super::*;
use crate::metrics::DECIDER_LAG;
use tokio::time::advance;

const SECOND: Duration = Duration::from_secs(1);

fn only(health: &Health) -> ComponentHealth {
    health.report().remove(0)
}

#[test]
fn a_failure_is_logged_once_until_it_changes_or_the_component_has_recovered() {
    let begin = Instant::now();
    let mut state = State::new(begin);
    let at = |seconds| begin + Duration::from_secs(seconds);
    assert_eq!(state.forget_past_failure(begin), None, "nothing has failed");
    assert!(state.note_failure("no store", at(0)));
    assert!(!state.note_failure("no store", at(1)));
    assert_eq!(state.forget_past_failure(at(10)), None, "it failed 9 s ago");
    assert!(state.note_failure("no log", at(12)));
    assert_eq!(state.forget_past_failure(at(15)), None);
    // It failed from 0 to 15, the first report of work after the last failure.
    assert_eq!(state.forget_past_failure(at(22)), Some(15 * SECOND));
    assert_eq!(
        state.forget_past_failure(at(23)),
        None,
        "the recovery is logged once"
    );
    assert!(state.note_failure("no log", at(24)));
}

/// The lines that are logged meanwhile.
fn logged(work: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone());
    tracing::subscriber::with_default(subscriber.finish(), work);
    String::from_utf8(lines.0.lock().clone()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_recovery_is_logged_with_the_time_that_the_component_failed() {
    let health = Health::default();
    let component = health.component("projector 3");
    component.failed(&"no store");
    advance(7 * SECOND).await;
    let lines = logged(|| component.recovered());
    assert!(lines.contains("projector 3 recovered after 7 s"), "{lines}");
    component.failed(&"no store");
    advance(3 * SECOND).await;
    component.working();
    advance(20 * SECOND).await;
    let lines = logged(|| component.working());
    assert!(lines.contains("projector 3 recovered after 3 s"), "{lines}");
}

#[test]
fn a_component_is_ready_from_its_first_work_until_it_fails() {
    let health = Health::default();
    let component = health.component("projector 3");
    assert_eq!(
        (only(&health).ready, &*only(&health).detail),
        (false, "starting")
    );
    component.starting("2 of 3 segments");
    assert_eq!(only(&health).detail, "2 of 3 segments");
    component.progress(1, 7);
    assert_eq!((only(&health).ready, only(&health).lag_records), (true, 7));
    component.degraded("no store");
    assert_eq!((only(&health).ready, only(&health).degraded), (true, true));
    component.failed(&"no log");
    assert_eq!(
        (only(&health).ready, &*only(&health).detail),
        (false, "no log")
    );
    assert_eq!(
        only(&health).lag_records,
        7,
        "the lag is the last one reported"
    );
    drop(component);
    assert!(health.report().is_empty());
}

#[tokio::test(start_paused = true)]
async fn work_that_waits_and_does_not_move_is_not_healthy_whatever_is_reported() {
    let health = Health::new(10 * SECOND);
    let component = health.component("log");
    component.progress(5, 0);
    for second in 1..=100 {
        advance(SECOND).await;
        component.progress(5, 3);
        assert_eq!(
            health.is_ready(),
            second <= 10,
            "{second}: {:?}",
            health.report()
        );
        assert_eq!(
            health.is_alive(),
            second <= 60,
            "{second}: {:?}",
            health.report()
        );
    }
    let detail = only(&health).detail;
    assert_eq!(detail, "3 records wait, and none was taken for 100 s");
    component.progress(6, 3);
    assert!(health.is_ready() && health.is_alive(), "it moves again");
    advance(30 * SECOND).await;
    component.progress(6, 0);
    assert!(health.is_ready() && health.is_alive(), "nothing waits");
    // What waits for others is not at fault.
    for _ in 0..100 {
        advance(SECOND).await;
        component.blocked("waiting for a decider", 3);
        assert!(health.is_ready() && only(&health).degraded);
    }
    // A component that reports nothing is not healthy either, also without work.
    component.working();
    advance(11 * SECOND).await;
    assert!(!health.is_ready() && health.is_alive());
    advance(50 * SECOND).await;
    assert!(!health.is_alive());
}

#[test]
fn a_failure_shows_until_the_position_moves() {
    let health = Health::default();
    let component = health.component("queue 0");
    component.progress(5, 1);
    component.failed(&"record 5 cannot be decoded");
    component.starting("recovering");
    component.progress(5, 2);
    component.measured(5, 3);
    let shown = only(&health);
    assert_eq!(
        (shown.ready, &*shown.detail, shown.lag_records),
        (false, "record 5 cannot be decoded", 3)
    );
    component.measured(6, 3);
    assert!(!only(&health).ready, "the work itself has not reported");
    component.progress(7, 3);
    assert!(only(&health).ready);
    component.failed(&"no log");
    component.progress(7, 0);
    assert!(only(&health).ready, "nothing is left to do");
}

#[test]
fn one_partition_that_fails_leaves_the_others_well_and_is_named() {
    let health = Health::default();
    let [one, other] = [1, 2].map(|n| health.partition("decider", Partition(n), Some(DECIDER_LAG)));
    assert!(!health.is_ready(), "none has begun");
    one.progress(1, 0);
    assert!(health.is_ready());
    other.failed(&"record 7 violates an invariant");
    let report = health.report();
    assert!(health.is_ready() && health.is_alive());
    assert_eq!(
        (&*report[1].name, report[1].ready, report[1].degraded),
        ("decider 2", false, true)
    );
    assert!(!report[0].degraded);
    one.failed(&"no log");
    assert!(!health.is_ready(), "nothing is decided");
    assert!(health.is_alive(), "a failure passes by itself");
}

#[test]
fn a_part_that_others_can_do_without_is_degraded_and_what_needs_a_restart_asks_for_it() {
    let health = Health::default();
    let log = health.component("log");
    let projector = health.for_dispensable().component("projector");
    log.working();
    projector.failed(&"no space");
    assert!(health.is_ready() && health.report()[1].degraded);
    log.broken(&"a sync failed");
    assert!(!health.is_ready() && !health.is_alive());
    assert_eq!(health.report()[0].detail, "a sync failed");
}

#[test]
fn a_task_that_panicked_asks_for_a_restart() {
    let health = Health::default();
    let component = health.component("projector 3");
    component.working();
    let panics = std::thread::spawn(move || {
        let _component = component;
        panic!("a bug");
    });
    panics.join().unwrap_err();
    assert!(!health.is_alive(), "{:?}", health.report());
    assert!(!health.is_ready(), "{:?}", health.report());
}
