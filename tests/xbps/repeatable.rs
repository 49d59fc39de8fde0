//! The same packages give the same bytes, wherever and whenever they are put together; only the guest that configures them
//! adds times of its own.

use crate::support::xbps::full;
use lib_common::digest;
use lib_common::timing::Stages;
use lib_image::build::void::{Recipe, plan};
use lib_xbps::location::Location;

#[test]
fn two_builds_from_one_lock_file_are_the_same_bytes_before_they_are_configured() {
    let dir = tempfile::tempdir().unwrap();
    let (lock, repository) = (dir.path().join("lock"), full::repository().dir.to_str().unwrap());
    let built = ["one", "two"].map(|cache| {
        let recipe = Recipe {
            arch: None,
            size: 1 << 30,
            base: true,
            packages: vec![],
            providers: vec![],
            staging: false,
            repositories: vec![Location::parse(repository).unwrap()],
            key: None,
            lock: Some(lock.clone()),
            update: false,
        };
        let mut stages = Stages::new("test", None);
        let planned = plan(&recipe, &dir.path().join(cache), &mut stages).unwrap();
        planned.plan().pending().save().unwrap();
        let made = planned.make(&mut stages).unwrap();
        (digest::of_file(&made.image()).unwrap(), std::fs::read_to_string(&lock).unwrap())
    });
    assert_eq!(built[0], built[1]);
    assert!(built[0].1.contains("base-files-0.145_1"), "{}", built[0].1);
}
