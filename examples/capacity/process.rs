//! What processes have taken of the machine, as `/proc` tells it.

use std::collections::BTreeMap;
use std::fs;

/// Parts of a second in which the system counts; the same on every Linux that programs see.
const TICKS_A_SECOND: u64 = 100;

/// Processor time by what took it, microseconds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spent(BTreeMap<String, u64>);

impl Spent {
    /// What this process and everything that it has started have taken so far: the `server` by its threads' names,
    /// others by their programs' names. What a process waited for has taken is counted with that.
    pub(crate) fn until_now(server: Option<u32>) -> Self {
        let mut parents = BTreeMap::new();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(process) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            if let Some(stat) = Stat::read(&format!("/proc/{process}/stat")) {
                parents.insert(process, stat.parent);
                found.push((process, stat));
            }
        }
        let mut spent = Self::default();
        for (process, stat) in found {
            if !descends(process, std::process::id(), &parents) {
                continue;
            }
            if Some(process) == server {
                spent.add_threads(process);
            } else {
                spent.add(stat.name, stat.ticks + stat.ticks_of_children);
            }
        }
        spent
    }

    fn add_threads(&mut self, process: u32) {
        for thread in fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
            if let Some(stat) = Stat::read(&thread.path().join("stat").display().to_string()) {
                self.add(format!("server: {}", stat.name), stat.ticks);
            }
        }
    }

    fn add(&mut self, name: String, ticks: u64) {
        *self.0.entry(name).or_default() += ticks * (1_000_000 / TICKS_A_SECOND);
    }

    /// Prints what has been taken since `before`, for each of `count` things.
    pub(crate) fn tell_since(&self, before: &Self, count: u32, of_what: &str) {
        println!("processor time {of_what}, microseconds");
        for (name, spent) in &self.0 {
            let spent = spent.saturating_sub(before.0.get(name).copied().unwrap_or_default());
            if spent > 0 {
                println!("{:>10.1}  {name}", spent as f64 / f64::from(count));
            }
        }
        let sum = |spent: &Self| spent.0.values().sum::<u64>();
        println!("{:>10.1}  in all", sum(self).saturating_sub(sum(before)) as f64 / f64::from(count));
    }
}

/// A line of `/proc/*/stat`, as far as it is needed.
struct Stat {
    name: String,
    parent: u32,
    ticks: u64,
    ticks_of_children: u64,
}

impl Stat {
    fn read(path: &str) -> Option<Self> {
        let line = fs::read_to_string(path).ok()?;
        // A name may have spaces and parentheses in it.
        let (head, rest) = line.rsplit_once(')')?;
        let (_, name) = head.split_once('(')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |place: usize| fields.get(place).and_then(|field| field.parse::<u64>().ok());
        Some(Self {
            name: name.to_owned(),
            parent: u32::try_from(number(1)?).ok()?,
            ticks: number(11)? + number(12)?,
            ticks_of_children: number(13)? + number(14)?,
        })
    }
}

fn descends(process: u32, from: u32, parents: &BTreeMap<u32, u32>) -> bool {
    let mut at = process;
    while at != from {
        match parents.get(&at) {
            Some(parent) if *parent > 0 => at = *parent,
            _ => return false,
        }
    }
    true
}
