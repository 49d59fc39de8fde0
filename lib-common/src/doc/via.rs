//! The way to a guest's sshd that a user chooses.

/// What `--via` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// Whichever answers first.
    Auto,
    /// TCP to the network card.
    Tap,
    /// The guest's vsock.
    Vsock,
}

impl Via {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Via::Auto => "auto",
            Via::Tap => "tap",
            Via::Vsock => "vsock",
        }
    }
}

impl std::str::FromStr for Via {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let known = [Via::Auto, Via::Tap, Via::Vsock];
        let found = known.into_iter().find(|via| via.as_str() == text);
        found.ok_or_else(|| format!("`{text}` is no way to a guest; known: auto, tap, vsock"))
    }
}
