//! An image's health check. The OCI's configuration has no such field; Docker's has `Healthcheck`,
//! and it is read from there (`docker-image/spec`, "Healthcheck"). Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

/// How to find out whether a container is well. A time or number that is not there is the runtime's
/// to choose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Healthcheck {
    /// `NONE` (no check, whatever a base image says), `CMD` and words, or `CMD-SHELL` and a line.
    pub test: Vec<String>,
    /// From one check to the next. Nanoseconds in JSON, as Docker writes it.
    #[serde(serialize_with = "nanoseconds")]
    pub interval: Option<Duration>,
    /// How long one may take.
    #[serde(serialize_with = "nanoseconds")]
    pub timeout: Option<Duration>,
    /// How long failures do not count after the start.
    #[serde(serialize_with = "nanoseconds")]
    pub start_period: Option<Duration>,
    /// The interval during that time.
    #[serde(serialize_with = "nanoseconds")]
    pub start_interval: Option<Duration>,
    /// Failures in a row that make it unhealthy.
    pub retries: Option<u32>,
}

/// The part of a configuration that matters here; whatever else it holds is passed over.
#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    config: Option<Inner>,
}

#[derive(Deserialize)]
struct Inner {
    #[serde(default, rename = "Healthcheck")]
    healthcheck: Option<Value>,
}

impl Healthcheck {
    /// The check in a configuration's text; `None` if it has none, or none that says what to run: a
    /// strange check is no reason to refuse an image.
    pub fn of_config(text: &[u8]) -> Option<Self> {
        let check = serde_json::from_slice::<Document>(text).ok()?.config?.healthcheck?;
        let words = check.get("Test")?.as_array()?;
        let test: Vec<String> =
            words.iter().map(|word| word.as_str().map(str::to_owned)).collect::<Option<_>>()?;
        if test.is_empty() {
            return None;
        }
        // Zero and less mean the default.
        let number = |key: &str| check.get(key).and_then(Value::as_u64).filter(|&n| n > 0);
        let time = |key: &str| number(key).map(Duration::from_nanos);
        Some(Self {
            test,
            interval: time("Interval"),
            timeout: time("Timeout"),
            start_period: time("StartPeriod"),
            start_interval: time("StartInterval"),
            retries: number("Retries").and_then(|n| u32::try_from(n).ok()),
        })
    }
}

fn nanoseconds<S: Serializer>(time: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    time.map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)).serialize(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(check: &str) -> Option<Healthcheck> {
        Healthcheck::of_config(format!(r#"{{"config":{{"Healthcheck":{check}}}}}"#).as_bytes())
    }

    #[test]
    fn dockers_field_is_read() {
        let check = parsed(
            r#"{"Test":["CMD-SHELL","curl -f localhost"],"Interval":30000000000,"Timeout":5000000,
                "StartPeriod":0,"StartInterval":-1,"Retries":3}"#,
        )
        .unwrap();
        assert_eq!(check.test, ["CMD-SHELL", "curl -f localhost"]);
        assert_eq!(check.interval, Some(Duration::from_secs(30)));
        assert_eq!(check.timeout, Some(Duration::from_millis(5)));
        assert_eq!((check.start_period, check.start_interval), (None, None));
        assert_eq!(check.retries, Some(3));
        let json = serde_json::to_value(&check).unwrap();
        assert_eq!(json["interval"], 30_000_000_000u64);
        assert!(json["start_period"].is_null());
    }

    #[test]
    fn strange_checks_are_none() {
        for check in
            ["null", "{}", "[]", "7", r#"{"Test":[]}"#, r#"{"Test":"x"}"#, r#"{"Test":[1]}"#]
        {
            assert_eq!(parsed(check), None, "{check}");
        }
        let odd = parsed(r#"{"Test":["NONE"],"Interval":"1s","Retries":99999999999}"#).unwrap();
        assert_eq!((odd.test, odd.interval, odd.retries), (vec!["NONE".to_owned()], None, None));
        assert_eq!(Healthcheck::of_config(b"{}"), None);
        assert_eq!(Healthcheck::of_config(b"{"), None);
    }
}
