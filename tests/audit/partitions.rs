//! Topics that were given more partitions, in which products are sold a second time.

use schemas::decision::DecisionRecord;
use schemas::ids::Partition;
use schemas::placement::Placement;

use crate::forge::{History, PARTITION, audited, history};

/// The history with the number of partitions in its claims.
fn begun_with(partitions: Option<u32>) -> History {
    let mut history = history();
    for record in &mut history.decided {
        if let DecisionRecord::Claim(claim) = record {
            claim.partitions = partitions;
        }
    }
    history
}

#[tokio::test]
async fn a_product_in_a_partition_that_is_not_its_own_is_a_violation() {
    let violation = audited(history().log_in(1, 1), None).await.violation;
    assert_eq!(violation, None);
    // With and without the number in the claims.
    for begun in [None, Some(2)] {
        let report = audited(begun_with(begun).log_in(2, 2), None).await;
        let violation = report.violation.expect("a product has two stocks");
        let product = violation.product.expect("it names the product");
        let belongs_to = Placement::new(2).partition_of(&product);
        let place = violation.place.expect("it names the decision");
        assert_ne!(place.partition, belongs_to);
        let expected = format!("belongs to partition {belongs_to}");
        assert!(violation.what.contains(&expected), "{}", violation.what);
    }
}

/// What was sold before is where it belonged then; what was sold afterwards is not.
#[tokio::test]
async fn the_number_in_the_claims_is_that_of_the_log() {
    let violation = audited(begun_with(Some(1)).log_in(1, 1), None)
        .await
        .violation;
    assert_eq!(violation, None);
    let report = audited(begun_with(Some(1)).log_in(2, 2), None).await;
    let violation = report.violation.expect("a product has two stocks");
    let place = violation.place.expect("it names the decision");
    assert_eq!(place.partition, Partition(1));
    let expected = format!("belongs to partition {PARTITION}");
    assert!(violation.what.contains(&expected), "{}", violation.what);
}

/// Nothing was sold in the new partitions yet.
#[tokio::test]
async fn another_number_than_the_claims_have_is_a_violation() {
    let report = audited(begun_with(Some(1)).log_in(2, 1), None).await;
    let what = report.violation.expect("the number differs").what;
    assert!(what.contains("begun with 1 partitions"), "{what}");
}
