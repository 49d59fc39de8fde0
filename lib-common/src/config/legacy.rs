//! Old names of settings: those of the time when the guest agent was a ping helper. They still count.

use super::{Env, Layer};
use crate::error::{Code, Error, Result};

/// Old keys and the key that each is now.
const KEYS: [(&str, &str); 2] = [("ping_helper", "guest_agent"), ("vsock_ping_helper", "guest_agent")];

/// The old variable, the one that it is now, and that one's key.
const VARIABLE: (&str, &str, &str) = ("BG_PING_HELPER", "BG_GUEST_AGENT", "guest_agent");

/// Whether it is the old name of a variable.
pub(super) fn is_variable(name: &str) -> bool {
    VARIABLE.0 == name
}

/// The key that an old one is now.
pub(super) fn key(old: &str) -> Option<&'static str> {
    KEYS.iter().find(|(key, _)| *key == old).map(|(_, new)| *new)
}

/// What the old variable says; `remarks` gets one on it.
///
/// # Errors
/// [`Code::BadConfig`] where the old and the new one are set and differ.
pub(super) fn variables(env: &Env, remarks: &mut Vec<String>) -> Result<Layer> {
    let (old, new, key) = VARIABLE;
    let set = |variable: &str| env.get(variable).filter(|value| !value.is_empty());
    let Some(value) = set(old) else { return Ok(Layer::new()) };
    if set(new).is_some_and(|other| other != value) {
        return Err(Error::new(
            Code::BadConfig,
            format!("{old} is another name of {new}, and they say different things"),
        )
        .hint(format!("unset {old}")));
    }
    remarks.push(format!("{old} is now {new}"));
    Ok(Layer::from([(key, (value.clone(), old.to_owned()))]))
}
