//! Which variants of a processor architecture this host runs (`image-spec/image-index.md`,
//! "Platform Variants"; the x86-64 psABI's micro-architecture levels). Asks the processor, nothing
//! else.

/// How well an image for `variant` suits a host of `architecture`: 0 is best, `None` not at all.
///
/// The plain one comes first, so that one name gives one image on all hosts of an architecture;
/// what needs more of the processor only where there is nothing else, and the processor has it.
pub(super) fn rank(architecture: &str, variant: Option<&str>) -> Option<u8> {
    match (architecture, variant.unwrap_or_default()) {
        (_, "") => Some(0),
        ("amd64", "v1") | ("arm64", "v8") => Some(1),
        ("amd64", variant) => {
            let level: u8 = variant.strip_prefix('v')?.parse().ok()?;
            // The most demanding of those that run comes first.
            (2..=level_of_host()).contains(&level).then(|| 10 - level)
        }
        _ => None,
    }
}

/// The x86-64 level this processor has.
#[cfg(target_arch = "x86_64")]
fn level_of_host() -> u8 {
    use std::arch::is_x86_feature_detected as has;
    let v2 = has!("sse3") && has!("ssse3") && has!("sse4.1") && has!("sse4.2");
    let v2 = v2 && has!("popcnt") && has!("cmpxchg16b");
    let v3 = v2 && has!("avx") && has!("avx2") && has!("bmi1") && has!("bmi2") && has!("fma");
    let v3 = v3 && has!("f16c") && has!("lzcnt") && has!("movbe");
    let v4 = v3 && has!("avx512f") && has!("avx512bw") && has!("avx512cd");
    let v4 = v4 && has!("avx512dq") && has!("avx512vl");
    1 + u8::from(v2) + u8::from(v3) + u8::from(v4)
}

#[cfg(not(target_arch = "x86_64"))]
fn level_of_host() -> u8 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_variant_comes_first() {
        for (architecture, variant, want) in [
            ("amd64", None, Some(0)),
            ("amd64", Some(""), Some(0)),
            ("amd64", Some("v1"), Some(1)),
            ("amd64", Some("v5"), None),
            ("amd64", Some("v0"), None),
            ("amd64", Some("x"), None),
            ("arm64", Some("v8"), Some(1)),
            ("arm64", Some("v9"), None),
            ("riscv64", Some("x"), None),
        ] {
            assert_eq!(rank(architecture, variant), want, "{architecture} {variant:?}");
        }
        if level_of_host() > 2 {
            assert!(rank("amd64", Some("v3")) < rank("amd64", Some("v2")));
        }
    }
}
