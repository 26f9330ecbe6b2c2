//! Going back to a revision of a pipeline that keeps state.

use super::*;

/// A rollback says what becomes of stores, and is refused as a deployment is.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_goes_on_with_what_is_kept() {
    let lab = Lab::start(KEPT).await;
    let fate = |deployed: &Deployed| deployed.stores[0].fate;
    let rollback = |dry_run| {
        let supervisor = lab.supervisor().clone();
        async move { supervisor.rollback("counts", Some(1), dry_run).await }
    };
    lab.deploy_counts(COUNT).await.unwrap();
    lab.write(&["a", "b"]).await;
    lab.until_committed(2).await;
    lab.deploy_counts("aggregate = \"count\"\ntable = \"counted\"").await.unwrap();
    lab.write(&["a"]).await;
    lab.until_committed(3).await;
    assert_eq!(fate(&rollback(true).await.unwrap()), StoreFate::Kept);
    assert_eq!(fate(&rollback(false).await.unwrap()), StoreFate::Kept);
    lab.write(&["a"]).await;
    lab.until_committed(4).await;
    assert_eq!(lab.records("out"), ["a=1", "b=1", "a=2", "a=3"]);
    let without = counts("filter = \"raw = 'x'\"");
    let dropped = lab.supervisor().deploy(&without, &BTreeMap::new()).await.unwrap();
    assert_eq!(fate(&dropped), StoreFate::Dropped);
    assert_eq!(fate(&rollback(true).await.unwrap()), StoreFate::Kept, "nothing was read meanwhile");
    lab.write(&["a"]).await;
    lab.until_committed(5).await;
    for dry_run in [true, false] {
        let refused = rollback(dry_run).await.unwrap_err();
        assert!(matches!(refused, DeployError::StoreMissed { .. }), "{refused}");
    }
    // What is live runs on.
    lab.write(&["c"]).await;
    lab.until_committed(6).await;
    lab.handle.shutdown().await.unwrap();
}
