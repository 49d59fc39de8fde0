//! Measuring: `bg-bench`. What is measured is what the other tools call, in the same process as the clock.

mod parallel;
mod scene;
mod summary;
mod tap;

pub use tap::{MOST_DEVICES, TapArgs, tap};
