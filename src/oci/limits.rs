//! Bounds on memory, processor time and processes as users write them, in Docker's words
//! (`--memory`, `--memory-swap`, `--cpus`, `--pids-limit`, `--device-read-bps`). Pure.

use std::path::PathBuf;

use crate::error::{Classify, ErrorKind};

/// The least memory a container may be given, as Docker: with less the runtime itself gets no
/// room to start it. In bytes.
pub const MEMORY_MIN: u64 = 6 * 1024 * 1024;

/// The most memory that can be asked for: the runtime specification counts in signed 64 bits.
const MEMORY_MAX: u128 = i64::MAX as u128;

/// The least processor time, in thousandths: the kernel takes no quota under 1 ms in 100 ms.
pub const CPU_MILLI_MIN: u32 = 10;

/// The most processes a kernel can number (`PID_MAX_LIMIT`).
const PIDS_MAX: u32 = 4 * 1024 * 1024;

/// Why a text cannot be a limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// No size at all.
    #[error("memory limit {text:?} is no size")]
    Memory {
        /// The text.
        text: String,
    },
    /// A size nothing can run in, or one that no machine has.
    #[error("memory limit {text:?} is not between {MEMORY_MIN} bytes (6m) and 2^63-1")]
    MemoryRange {
        /// The text.
        text: String,
    },
    /// Swap is counted together with memory.
    #[error("a limit on swap needs one on memory")]
    SwapWithoutMemory,
    /// Less than memory alone.
    #[error("memory and swap together ({swap} bytes) are less than memory alone ({memory})")]
    SwapUnderMemory {
        /// In bytes.
        swap: u64,
        /// In bytes.
        memory: u64,
    },
    /// No device with bytes per second.
    #[error("device limit {text:?} is not of the form DEVICE:BYTES-PER-SECOND")]
    Rate {
        /// The text.
        text: String,
    },
    /// No number of processors.
    #[error("processor limit {text:?} is no number of processors")]
    Cpus {
        /// The text.
        text: String,
    },
    /// Too small or too large.
    #[error("processor limit {text:?} is not between 0.01 and 1000000")]
    CpusRange {
        /// The text.
        text: String,
    },
    /// No number of processes.
    #[error("process limit {text:?} is no number between 1 and {PIDS_MAX}")]
    Pids {
        /// The text.
        text: String,
    },
}

impl Classify for LimitError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Memory { .. } => "give bytes or a number with b, k, m or g: 512m, 1.5g",
            Self::Cpus { .. } => "give a number with at most three decimals: 2, 0.5, 1.25",
            Self::SwapWithoutMemory => "add --memory",
            Self::SwapUnderMemory { .. } => "--memory-swap is the sum of both, as with Docker",
            Self::Rate { .. } => "give a block device and a size: /dev/sda:10m",
            Self::MemoryRange { .. } | Self::CpusRange { .. } | Self::Pids { .. } => return None,
        };
        Some(hint.to_owned())
    }
}

/// A memory limit in bytes: `512m`, `1.5g`, `6291456`. The suffixes b, k, m and g are powers of
/// 1024 in either case, with or without a `b` or `ib` after them, as Docker reads them.
///
/// # Errors
/// [`LimitError`] if it is no size, or under [`MEMORY_MIN`].
pub fn parse_memory(text: &str) -> Result<u64, LimitError> {
    let bytes = bytes(text).ok_or_else(|| LimitError::Memory { text: shortened(text) })?;
    match u64::try_from(bytes) {
        Ok(size) if size >= MEMORY_MIN && bytes <= MEMORY_MAX => Ok(size),
        _ => Err(LimitError::MemoryRange { text: shortened(text) }),
    }
}

/// Memory and swap together, in bytes; -1 is no limit. As with Docker it needs a memory limit and
/// is no less than that.
///
/// # Errors
/// [`LimitError`] if it is no size, or less than `memory`.
pub fn parse_memory_swap(text: &str, memory: Option<u64>) -> Result<i64, LimitError> {
    let Some(memory) = memory else { return Err(LimitError::SwapWithoutMemory) };
    if text == "-1" {
        return Ok(-1);
    }
    let swap = parse_memory(text)?;
    if swap < memory {
        return Err(LimitError::SwapUnderMemory { swap, memory });
    }
    i64::try_from(swap).map_err(|_| LimitError::MemoryRange { text: shortened(text) })
}

/// A size in bytes of at least 1, as [`parse_memory`] reads them.
pub fn parse_size(text: &str) -> Option<u64> {
    bytes(text).and_then(|bytes| u64::try_from(bytes).ok()).filter(|bytes| *bytes > 0)
}

/// A device and the bytes per second that it may be read or written with: `/dev/sda:10m`.
///
/// # Errors
/// [`LimitError::Rate`].
pub fn parse_rate(text: &str) -> Result<(PathBuf, u64), LimitError> {
    let rate = || LimitError::Rate { text: shortened(text) };
    let (device, size) = text.rsplit_once(':').ok_or_else(rate)?;
    if !device.starts_with('/') || device.contains('\0') {
        return Err(rate());
    }
    Ok((PathBuf::from(device), parse_size(size).ok_or_else(rate)?))
}

/// A number with a unit; `None` if it is no size at all.
fn bytes(text: &str) -> Option<u128> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let suffix = suffix.trim_start().to_ascii_lowercase();
    let unit: u128 = match suffix.as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return None,
    };
    // Nine decimals are finer than a byte in any unit. What overflows is out of every range.
    let billionths = decimal(number, 9)?;
    Some(billionths.checked_mul(unit).map_or(u128::MAX, |b| b / 1_000_000_000))
}

/// Processor time in thousandths of a processor: `1.5` is 1500.
///
/// # Errors
/// [`LimitError`] if it is no number, has more than three decimals, or is under 0.01.
pub fn parse_cpus(text: &str) -> Result<u32, LimitError> {
    let milli = decimal(text, 3).ok_or_else(|| LimitError::Cpus { text: shortened(text) })?;
    match u32::try_from(milli) {
        Ok(milli) if (CPU_MILLI_MIN..=1_000_000_000).contains(&milli) => Ok(milli),
        _ => Err(LimitError::CpusRange { text: shortened(text) }),
    }
}

/// The most processes and threads: at least 1.
///
/// # Errors
/// [`LimitError`] if it is no such number. 0 and -1, which mean "unlimited" to Docker, are none.
pub fn parse_pids(text: &str) -> Result<u32, LimitError> {
    let plain = text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(pids) if plain && (1..=PIDS_MAX).contains(&pids) => Ok(pids),
        _ => Err(LimitError::Pids { text: shortened(text) }),
    }
}

/// `digits[.digits]` or `.digits` times 10^`scale`; `None` if it is not that, or has more than `scale` decimals.
/// Floating point would turn some values into their neighbours.
fn decimal(text: &str, scale: usize) -> Option<u128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let numeric = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let whole = if whole.is_empty() && text.starts_with('.') { "0" } else { whole };
    if !numeric(whole) || !numeric(fraction) || fraction.len() > scale || whole.len() > 20 {
        return None;
    }
    format!("{whole}{fraction:0<scale$}").parse().ok()
}

fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_takes_dockers_suffixes() {
        let cases = [
            ("512m", 512 << 20),
            ("512M", 512 << 20),
            ("512mb", 512 << 20),
            ("512MiB", 512 << 20),
            ("1g", 1 << 30),
            ("1.5g", 3 << 29),
            ("0.5 g", 1 << 29),
            (".5g", 1 << 29),
            ("6m", 6 << 20),
            ("6291456", 6 << 20),
            ("6291456b", 6 << 20),
            ("10000k", 10_240_000),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_memory(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn memory_refuses_what_is_none() {
        for text in ["", "m", "-1", "512x", "1.m", ".g", "1..5g", "5 5m", "0x10m", "1.5.5g", "9t"] {
            assert!(matches!(parse_memory(text), Err(LimitError::Memory { .. })), "{text}");
        }
        for text in ["0", "1", "5m", "6291455", "99999999999999999999g", "9223372036854775808"] {
            assert!(matches!(parse_memory(text), Err(LimitError::MemoryRange { .. })), "{text}");
        }
    }

    #[test]
    fn swap_is_counted_with_memory() {
        let memory = Some(64 << 20);
        assert_eq!(parse_memory_swap("64m", memory), Ok(64 << 20));
        assert_eq!(parse_memory_swap("1g", memory), Ok(1 << 30));
        assert_eq!(parse_memory_swap("-1", memory), Ok(-1));
        assert_eq!(parse_memory_swap("1g", None), Err(LimitError::SwapWithoutMemory));
        let under = parse_memory_swap("63m", memory);
        assert!(matches!(under, Err(LimitError::SwapUnderMemory { .. })));
        for text in ["-2", "", "0"] {
            assert!(parse_memory_swap(text, memory).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_have_a_device() {
        assert_eq!(parse_rate("/dev/sda:10m"), Ok(("/dev/sda".into(), 10 << 20)));
        for text in ["", "/dev/sda", "/dev/sda:", "sda:1m", "/dev/sda:0", "/dev/sda:-1", ":1m"] {
            assert!(matches!(parse_rate(text), Err(LimitError::Rate { .. })), "{text}");
        }
    }

    #[test]
    fn cpus_are_exact_thousandths() {
        for (text, milli) in
            [("1.5", 1500), ("2", 2000), (".5", 500), ("0.01", 10), ("0.125", 125), ("1.10", 1100)]
        {
            assert_eq!(parse_cpus(text), Ok(milli), "{text}");
        }
        for text in ["", ".", "1.", "-.5", "-1", "1e3", "1.2345", "one", "inf"] {
            assert!(matches!(parse_cpus(text), Err(LimitError::Cpus { .. })), "{text}");
        }
        for text in ["0", "0.009", "1000001", "99999999999999999999"] {
            assert!(matches!(parse_cpus(text), Err(LimitError::CpusRange { .. })), "{text}");
        }
    }

    #[test]
    fn pids_are_at_least_one() {
        assert_eq!(parse_pids("1"), Ok(1));
        assert_eq!(parse_pids("4194304"), Ok(4_194_304));
        for text in ["", "0", "-1", "+5", "4194305", "99999999999", "many"] {
            assert!(matches!(parse_pids(text), Err(LimitError::Pids { .. })), "{text}");
        }
    }
}
