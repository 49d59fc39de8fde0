//! The record of a TAP's number in the file `pool`: a little-endian number of 64 bits. The lower half is the user that may
//! open an idle TAP; above it are 8 bits that say what it is, and 24 for the place of a VM's address. Pure.

pub(super) type Record = [u8; 8];

/// The lowest bits of what stands above them.
const STATE: u32 = 32;
const PLACE: u32 = 40;

/// What is known of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// What the TAP is.
    pub(super) state: State,
    /// The place in the network of the address of the VM that has it, or that was about to take it; 0 is nobody's.
    pub(super) place: u32,
}

/// What a TAP is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// There is no such TAP.
    None,
    /// It is this user's, and nobody has it.
    Idle(u32),
    /// A VM has it, or it is not as we make them.
    Busy,
}

impl Slot {
    /// There is no such TAP, and nobody is about to make it.
    pub(super) const NONE: Slot = Slot { state: State::None, place: 0 };

    pub(super) fn to_record(self) -> Record {
        let (state, owner): (u64, u32) = match self.state {
            State::None => (0, 0),
            State::Idle(owner) => (1, owner),
            State::Busy => (2, 0),
        };
        ((u64::from(self.place) << PLACE) | (state << STATE) | u64::from(owner)).to_le_bytes()
    }

    pub(super) fn of(record: Record) -> Self {
        let number = u64::from_le_bytes(record);
        let state = match (number >> STATE) as u8 {
            0 => State::None,
            1 => State::Idle(number as u32),
            _ => State::Busy,
        };
        Slot { state, place: (number >> PLACE) as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_as_it_went_and_zeros_are_nothing() {
        assert_eq!(Slot::of([0; 8]), Slot::NONE);
        for state in [State::None, State::Idle(0), State::Idle(u32::MAX), State::Busy] {
            for place in [0, 1, 0x00ff_ffff] {
                let slot = Slot { state, place };
                assert_eq!(Slot::of(slot.to_record()), slot);
            }
        }
    }
}
