//! Reads settings one by one and gathers what is wrong with them, so that all faults are told at once.

use std::fmt;

use super::settings::{NOT_YET, Setting, Unset};

/// The settings are not usable; every fault is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// What is wrong, one or more.
    pub faults: Vec<Fault>,
}

/// What is wrong with one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The variable.
    pub variable: &'static str,
    /// Its value; `None` when it must not be shown.
    pub given: Option<String>,
    /// What would be right.
    pub right: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let many = if self.faults.len() == 1 { "1 fault" } else { &format!("{} faults", self.faults.len()) };
        write!(f, "the configuration has {many}:")?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.given {
            Some(given) => write!(f, "{} is {given:?}: {}", self.variable, self.right),
            None => write!(f, "{} (its value is not shown): {}", self.variable, self.right),
        }
    }
}

/// Where values come from, and the faults so far.
pub(super) struct Reader<'a> {
    source: &'a dyn Fn(&str) -> Option<String>,
    faults: Vec<Fault>,
}

impl<'a> Reader<'a> {
    /// Reads from `source`; variables that this version does not know are faults from the start.
    pub(super) fn new(source: &'a dyn Fn(&str) -> Option<String>) -> Self {
        let mut reader = Self { source, faults: Vec::new() };
        for not_yet in NOT_YET {
            if reader.given(not_yet.name).is_some() {
                let right = format!("this version does not know it ({}); it must not be set", not_yet.instead);
                reader.faults.push(Fault { variable: not_yet.name, given: None, right });
            }
        }
        reader
    }

    /// The value that a variable was given; an empty one is none.
    pub(super) fn given(&self, name: &str) -> Option<String> {
        (self.source)(name).filter(|value| !value.is_empty())
    }

    /// The setting's value, its default when it is not set. `None` when it has neither, or when `parse` refuses it,
    /// which is a fault: it must be what `right` says.
    pub(super) fn read<T>(
        &mut self,
        setting: &Setting,
        right: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = match (self.given(setting.name), setting.unset) {
            (Some(given), _) => given,
            (None, Unset::Value(value)) => value.to_owned(),
            (None, Unset::Words(_)) => return None,
        };
        if text.contains(char::REPLACEMENT_CHARACTER) {
            self.fault(setting, "it must be UTF-8");
            return None;
        }
        let parsed = parse(&text);
        if parsed.is_none() {
            self.fault(setting, &format!("it must be {right}"));
        }
        parsed
    }

    /// A whole number within bounds.
    pub(super) fn number(&mut self, setting: &Setting, unit: &str, least: u64, most: u64) -> Option<u64> {
        let right = format!("a whole number of {unit} from {least} to {most}");
        self.read(setting, &right, |text| text.parse().ok().filter(|number| (least..=most).contains(number)))
    }

    /// Notes a fault of a setting; its value is shown unless it is a secret.
    pub(super) fn fault(&mut self, setting: &Setting, right: &str) {
        let unset = match setting.unset {
            Unset::Value(value) => value,
            Unset::Words(_) => "",
        };
        let given = (!setting.secret).then(|| self.given(setting.name).unwrap_or_else(|| unset.to_owned()));
        self.faults.push(Fault { variable: setting.name, given, right: right.to_owned() });
    }

    /// The configuration, when nothing was wrong.
    pub(super) fn finish<T>(self, config: Option<T>) -> Result<T, ConfigError> {
        match config {
            Some(config) if self.faults.is_empty() => Ok(config),
            Some(_) | None => Err(ConfigError { faults: self.faults }),
        }
    }
}
