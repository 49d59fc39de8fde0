//! Thousands of lives beside one VM that lives through all of them: nothing grows, and everything is as it was.

use super::{NONE, Place, World, is_full};
use crate::support::footprint::Footprint;

#[test]
fn thousands_of_lives_leave_nothing() {
    let Some(world) = World::with_network("thousands_of_lives_leave_nothing") else { return };
    world.vm(&["create", "stays"]).ok();
    let cycle = || {
        world.vm(&["create", "comes"]).ok();
        world.vm(&["rm", "--force", "comes"]).ok();
    };
    // What there is from the first one on: locks, an idle TAP.
    (0..3).for_each(|_| cycle());
    let footprint = || {
        let Place::Net(netns) = &world.place else { unreachable!("it was made so") };
        Footprint::of(&world.sandbox.path(""), netns)
    };
    let before = footprint();
    let memory = before.resident();
    (0..if is_full() { 2_000 } else { 40 }).for_each(|_| cycle());
    footprint().assert_is_as(&before, &memory);
    assert_eq!(world.run("bg-tap", &["ls"], "").documents().len(), 1, "that of the VM that stays");
    assert_eq!(world.leaks(), NONE);
}
