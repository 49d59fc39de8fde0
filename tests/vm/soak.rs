//! Lives of real guests beside one that lives through all of them: nothing of them is left.

use super::world::World;
use crate::support::footprint::Footprint;

#[test]
fn lives_of_real_guests_leave_nothing() {
    let Some(world) = World::in_netns("lives_of_real_guests_leave_nothing") else { return };
    let small = ["--memory", "384M", "--work-size", "2G"];
    world.ok("bg-vm", &[&["create", "stays"], &small[..]].concat());
    world.healthy("stays");
    let life = || {
        world.ok("bg-vm", &[&["create", "comes"], &small[..]].concat());
        world.healthy("comes");
        assert_eq!(world.guest("comes", "hostname"), "comes");
        world.ok("bg-vm", &["rm", "--force", "comes"]);
    };
    // What there is from the first one on: locks, an idle TAP.
    life();
    let before = Footprint::of(world.path(), world.netns());
    let lives = if std::env::var_os("BG_TEST_FULL").is_some() { 30 } else { 1 };
    (0..lives).for_each(|_| life());
    // The guest that stays lives on, and so do its VMM's threads and memory: those are not ours.
    assert_eq!(Footprint::of(world.path(), world.netns()), before);
}
