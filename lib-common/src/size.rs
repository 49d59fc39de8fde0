//! Sizes in messages, each with its unit.

/// A number of bytes in the largest unit in which it is whole; else in one with a decimal place, and exactly.
pub fn bytes(n: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let largest = UNITS.into_iter().find(|(unit, _)| n >= *unit);
    let Some((unit, name)) = largest else { return format!("{n} bytes") };
    match UNITS.into_iter().find(|(unit, _)| n >= *unit && n.is_multiple_of(*unit)) {
        Some((whole, name)) if n / whole < 10_000 => format!("{} {name}", n / whole),
        _ => format!("{:.1} {name} ({n} bytes)", n as f64 / unit as f64),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_size_has_a_unit_and_loses_nothing() {
        for (n, text) in [
            (0, "0 bytes"),
            (1000, "1000 bytes"),
            (1024, "1 KiB"),
            (1 << 20, "1 MiB"),
            (1536 << 20, "1536 MiB"),
            (8 << 30, "8 GiB"),
            (2_000_000, "1.9 MiB (2000000 bytes)"),
            ((1 << 30) + 1, "1.0 GiB (1073741825 bytes)"),
        ] {
            assert_eq!(super::bytes(n), text);
        }
    }
}
