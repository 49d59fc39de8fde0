//! The values of settings, from text: those of files and variables, and of flags that mean the same.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::Duration;

/// A size: bytes, or a number with `K`, `M`, `G` or `T` (powers of 1,024).
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size such as 512M or 8G");
    let text = text.trim();
    let (digits, shift) = match text.char_indices().next_back().ok_or_else(wrong)? {
        (i, 'K' | 'k') => (&text[..i], 10),
        (i, 'M' | 'm') => (&text[..i], 20),
        (i, 'G' | 'g') => (&text[..i], 30),
        (i, 'T' | 't') => (&text[..i], 40),
        _ => (text, 0),
    };
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).filter(|n| *n <= 1 << 50).ok_or_else(wrong)
}

/// How much memory a VM may have, in MiB.
pub const MEMORY_MIB: RangeInclusive<u64> = 64..=4 << 20;

/// How many virtual processors a VM may have: as many as Firecracker takes.
pub const VCPUS: RangeInclusive<u32> = 1..=32;

/// Memory: a size in whole MiB, from 64M to 4T.
pub fn parse_memory_mib(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text)?;
    let fits = bytes % (1 << 20) == 0 && MEMORY_MIB.contains(&(bytes >> 20));
    if fits { Ok(bytes >> 20) } else { Err(format!("`{text}` is not a whole number of MiB from 64M to 4T")) }
}

/// Virtual processors: 1 to 32.
pub fn parse_vcpu(text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|n| VCPUS.contains(n)).ok_or_else(|| format!("`{text}` is not a number from 1 to 32"))
}

pub(super) fn parse_net(text: &str) -> Result<Option<bool>, String> {
    match text {
        "auto" => Ok(None),
        "on" => Ok(Some(true)),
        "off" => Ok(Some(false)),
        _ => Err(format!("`{text}` is not auto, on or off")),
    }
}

pub(super) fn parse_addresses(text: &str) -> Result<Vec<Ipv4Addr>, String> {
    let address = |word: &str| word.trim().parse().map_err(|_| format!("`{word}` is not an IPv4 address"));
    text.split(',').map(address).collect()
}

/// Seconds, a decimal number from 0 to 86,400.
pub fn parse_seconds(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a number of seconds from 0 to 86400");
    let seconds: f64 = text.parse().map_err(|_| wrong())?;
    if (0.0..=86_400.0).contains(&seconds) { Ok(Duration::from_secs_f64(seconds)) } else { Err(wrong()) }
}

/// The time that a boot may take: seconds, a decimal number from 1 to 86,400.
pub fn parse_boot_timeout(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a number of seconds from 1 to 86400");
    parse_seconds(text).ok().filter(|time| *time >= Duration::from_secs(1)).ok_or_else(wrong)
}
