//! Options of several kinds in the order in which they were given: clap sorts them by kind.

use clap::ArgMatches;
use std::ffi::OsString;

/// Each value of these options, with the option's id, as they stood on the command line.
pub fn in_order<'a>(matches: &ArgMatches, ids: &[&'a str]) -> Vec<(&'a str, OsString)> {
    let mut found = vec![];
    for id in ids {
        let (Some(values), Some(indices)) = (matches.get_raw(id), matches.indices_of(id)) else { continue };
        found.extend(indices.zip(values).map(|(index, value)| (index, (*id, value.to_owned()))));
    }
    found.sort_by_key(|(index, _)| *index);
    found.into_iter().map(|(_, one)| one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Arg, ArgAction, Command};

    #[test]
    fn values_stand_as_they_were_typed() {
        let option = |id: &'static str| Arg::new(id).long(id).action(ArgAction::Append);
        let command = Command::new("t").args(["a", "b", "c"].map(option)).arg(option("other"));
        let line = ["t", "--b", "1", "--a=2", "--other", "x", "--b", "3", "--b", "1"];
        let matches = command.try_get_matches_from(line).unwrap();
        let expected = [("b", "1"), ("a", "2"), ("b", "3"), ("b", "1")].map(|(id, v)| (id, OsString::from(v)));
        assert_eq!(in_order(&matches, &["a", "b", "c"]), expected);
    }
}
