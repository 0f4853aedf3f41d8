//! SELinux contexts as text, and the labels that a policy's defaults and a user's words make. Pure.

use serde::{Deserialize, Serialize};

use super::mcs::Pair;

/// A context's parts: `user:role:type`, and `:level` where the policy has levels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    user: String,
    role: String,
    kind: String,
    /// May hold further colons.
    level: Option<String>,
}

impl Context {
    /// Reads a context. `None` if it has fewer parts, or an odd character.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, ':').map(str::to_owned);
        let (user, role, kind) = (parts.next()?, parts.next()?, parts.next()?);
        let level = parts.next();
        let names = [&user, &role, &kind].into_iter().all(|name| is_name(name));
        let sound = names && level.as_deref().is_none_or(is_level);
        sound.then_some(Self { user, role, kind, level })
    }

    /// The same without categories.
    fn without_categories(self) -> Self {
        let level = self.level.map(|_| "s0".to_owned());
        Self { level, ..self }
    }
}

impl std::fmt::Display for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.user, self.role, self.kind)?;
        self.level.iter().try_for_each(|level| write!(f, ":{level}"))
    }
}

/// What could be the name of a user, role or type.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

/// What could be a level, or a range of levels.
fn is_level(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "_.,:-".contains(c))
}

/// What `--security-opt label=…` says; of contradicting words the last counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelOptions {
    /// `disable`.
    pub disable: bool,
    user: Option<String>,
    role: Option<String>,
    kind: Option<String>,
    level: Option<String>,
    file_kind: Option<String>,
}

impl LabelOptions {
    /// Takes a word such as `type:container_t`; `None` if it is none.
    pub fn take(&mut self, word: &str) -> Option<()> {
        if word == "disable" {
            self.disable = true;
            return Some(());
        }
        let (what, value) = word.split_once(':')?;
        let (place, sound) = match what {
            "user" => (&mut self.user, is_name(value)),
            "role" => (&mut self.role, is_name(value)),
            "type" => (&mut self.kind, is_name(value)),
            "filetype" => (&mut self.file_kind, is_name(value)),
            "level" => (&mut self.level, is_level(value)),
            _ => return None,
        };
        *place = sound.then(|| value.to_owned());
        place.as_ref().map(drop)
    }

    /// Whether a label is asked for that is not the policy's.
    pub fn asks(&self) -> bool {
        *self != Self { disable: self.disable, ..Self::default() }
    }

    /// Whether the level is left to carboy.
    pub fn leaves_level(&self) -> bool {
        self.level.is_none()
    }
}

/// What the loaded policy has for containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// Of their processes.
    pub process: Context,
    /// Of their files.
    pub file: Context,
    /// Whether contexts have levels, and so categories.
    pub levels: bool,
}

/// The labels of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels {
    /// Of its processes.
    pub process: String,
    /// Of its files.
    pub file: String,
    /// Of carboy's own programs in it, which are there in all bundles: the policy's, whatever is asked for.
    pub common: String,
    /// The categories that carboy chose for it; none if its level was asked for.
    pub categories: Option<Pair>,
}

impl Labels {
    /// The labels that `options` make of the policy's, with the categories that were chosen.
    pub fn new(defaults: &Defaults, options: &LabelOptions, chosen: Option<Pair>) -> Self {
        let Defaults { mut process, mut file, .. } = defaults.clone();
        let common = file.clone().without_categories().to_string();
        let given = |part: &mut String, value: &Option<String>| {
            value.iter().for_each(|value| part.clone_from(value));
        };
        for context in [&mut process, &mut file] {
            given(&mut context.user, &options.user);
            let level = chosen.map(Pair::level).or_else(|| options.level.clone());
            if level.is_some() {
                context.level = level;
            }
        }
        // A file's role means nothing: it is `object_r` everywhere.
        given(&mut process.role, &options.role);
        given(&mut process.kind, &options.kind);
        given(&mut file.kind, &options.file_kind);
        let (process, file) = (process.to_string(), file.to_string());
        Self { process, file, common, categories: chosen }
    }

    /// The same with other categories.
    pub fn with(&self, pair: Pair) -> Self {
        let relabelled = |text: &str| match Context::parse(text) {
            Some(context) => Context { level: Some(pair.level()), ..context }.to_string(),
            None => text.to_owned(),
        };
        let (process, file) = (relabelled(&self.process), relabelled(&self.file));
        Self { process, file, common: self.common.clone(), categories: Some(pair) }
    }

    /// The label of files that all bundles may use.
    pub fn shared(&self) -> String {
        match Context::parse(&self.file) {
            Some(context) => context.without_categories().to_string(),
            None => self.file.clone(),
        }
    }

    /// The categories that no other bundle is to be given, chosen or asked for.
    pub fn pair(&self) -> Option<Pair> {
        Pair::of_level(Context::parse(&self.file)?.level.as_deref()?)
    }
}

/// The contexts of processes and of files, from the policy's `lxc_contexts` (lines such as
/// `process = "system_u:system_r:container_t:s0"`).
pub fn of_containers(text: &str) -> Option<(Context, Context)> {
    let value = |key: &str| {
        let found = assignments(text).find(|(name, _)| *name == key)?.1;
        Context::parse(found.trim_matches('"'))
    };
    Some((value("process")?, value("file")?))
}

/// The policy's name, from `/etc/selinux/config` (selinux_config(5)).
pub fn policy_name(text: &str) -> Option<&str> {
    let (_, name) = assignments(text).filter(|(name, _)| *name == "SELINUXTYPE").last()?;
    // It becomes a part of a path.
    (is_name(name) && !name.starts_with('.')).then_some(name)
}

fn assignments(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines.filter_map(|line| line.split_once('=')).map(|(name, value)| (name.trim(), value.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Debian 13 has them.
    const CONTEXTS: &str = r#"process = "system_u:system_r:container_t:s0"
content = "system_u:object_r:virt_var_lib_t:s0"
file = "system_u:object_r:container_file_t:s0"
ro_file = "system_u:object_r:container_ro_file_t:s0"
"#;

    fn defaults() -> Defaults {
        let (process, file) = of_containers(CONTEXTS).unwrap();
        Defaults { process, file, levels: true }
    }

    fn options(words: &[&str]) -> LabelOptions {
        let mut options = LabelOptions::default();
        words.iter().for_each(|word| options.take(word).unwrap());
        options
    }

    #[test]
    fn the_policys_files_are_read() {
        let (process, file) = of_containers(CONTEXTS).unwrap();
        assert_eq!(process.to_string(), "system_u:system_r:container_t:s0");
        assert_eq!(file.to_string(), "system_u:object_r:container_file_t:s0");
        for bad in
            ["", "process = \"a:b:c\"", "process = \"a:b\"\nfile = \"a:b:c\"", "# process = x"]
        {
            assert_eq!(of_containers(bad), None, "{bad}");
        }
        let config = "# SELINUXTYPE= can be\nSELINUX=enforcing\nSELINUXTYPE=targeted \n";
        assert_eq!(policy_name(config), Some("targeted"));
        for bad in ["", "SELINUXTYPE=", "SELINUXTYPE=../x", "SELINUXTYPE=.."] {
            assert_eq!(policy_name(bad), None, "{bad}");
        }
    }

    #[test]
    fn contexts_with_and_without_a_level_read_back() {
        for text in ["u:r:t", "system_u:system_r:container_t:s0", "a:b:c:s0-s0:c0.c1023"] {
            assert_eq!(Context::parse(text).unwrap().to_string(), text);
        }
        for bad in ["", "u:r", "u:r:", ":r:t", "u:r:t:", "u:r:t\n", "u:r:t:s0 x", "u:r:t:s0\0"] {
            assert_eq!(Context::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn labels_are_the_policys_with_categories() {
        let pair = Pair::parse("c3,c9");
        let labels = Labels::new(&defaults(), &options(&[]), pair);
        assert_eq!(labels.process, "system_u:system_r:container_t:s0:c3,c9");
        assert_eq!(labels.file, "system_u:object_r:container_file_t:s0:c3,c9");
        assert_eq!(labels.shared(), "system_u:object_r:container_file_t:s0");
        assert_eq!(labels.common, labels.shared());
        assert_eq!((labels.pair(), labels.categories), (pair, pair));
        let other = labels.with(Pair::parse("c1,c2").unwrap());
        assert_eq!(other.process, "system_u:system_r:container_t:s0:c1,c2");
        assert_eq!(other.pair(), Pair::parse("c1,c2"));
    }

    #[test]
    fn a_policy_without_levels_has_no_categories() {
        let (process, file) = ("u:r:t", "u:object_r:f").into_contexts();
        let labels =
            Labels::new(&Defaults { process, file, levels: false }, &options(&["type:x"]), None);
        assert_eq!(labels.process, "u:r:x");
        assert_eq!(
            (labels.shared(), labels.common.as_str()),
            ("u:object_r:f".into(), "u:object_r:f")
        );
        assert_eq!(labels.pair(), None);
    }

    trait IntoContexts {
        fn into_contexts(self) -> (Context, Context);
    }

    impl IntoContexts for (&str, &str) {
        fn into_contexts(self) -> (Context, Context) {
            (Context::parse(self.0).unwrap(), Context::parse(self.1).unwrap())
        }
    }

    #[test]
    fn words_change_what_they_name() {
        let words =
            ["type:spc_t", "level:s0:c5,c6", "user:staff_u", "role:staff_r", "filetype:svirt_t"];
        let asked = options(&words);
        assert!(asked.asks() && !asked.leaves_level());
        let labels = Labels::new(&defaults(), &asked, None);
        assert_eq!(labels.process, "staff_u:staff_r:spc_t:s0:c5,c6");
        assert_eq!(labels.file, "staff_u:object_r:svirt_t:s0:c5,c6");
        assert_eq!(labels.shared(), "staff_u:object_r:svirt_t:s0");
        assert_eq!(labels.common, "system_u:object_r:container_file_t:s0");
        assert_eq!((labels.pair(), labels.categories), (Pair::parse("c5,c6"), None));
        let disabled = options(&["disable"]);
        assert!(disabled.disable && !disabled.asks() && disabled.leaves_level());
    }

    #[test]
    fn what_is_no_word_is_refused() {
        for word in ["", "type", "type:", "type:a b", "level:s0\n", "kind:x", "disable:", "nested"]
        {
            assert_eq!(LabelOptions::default().take(word), None, "{word}");
        }
    }
}
