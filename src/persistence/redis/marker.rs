//! Marks by which it is noticed that a Redis has been flushed, or has come back without its data, though the
//! connection never broke: keys that a server sets again and again, and expects to find.
//!
//! A flush empties one node, and each node of a cluster has a range of slots. So a cluster gets a mark in each 64th
//! of the slots: every node that has two such ranges' worth of neighbouring slots holds at least one.

use std::time::Duration;

use uuid::Uuid;

/// For how long a mark stays when its server has gone, and how long a server may freeze before it has to assume the
/// worst.
pub(super) const LIFE: Duration = Duration::from_secs(60);
/// Slots of a cluster.
const SLOTS: u16 = 16_384;
/// Marks in a cluster.
const RANGES: u16 = 64;

/// The names of a server's marks; `server` tells servers apart.
pub(super) fn names(server: Uuid, is_cluster: bool) -> Vec<String> {
    let name = |number: u32| format!("storekeeper:mirror:{}:{number}", server.simple());
    if !is_cluster {
        return vec![name(0)];
    }
    let mut found = vec![None; usize::from(RANGES)];
    let mut numbers = 0..;
    while found.iter().any(Option::is_none) {
        let Some(number) = numbers.next() else { break };
        let range = usize::from(slot(&name(number)) / (SLOTS / RANGES));
        found[range].get_or_insert(name(number));
    }
    found.into_iter().flatten().collect()
}

/// The slot of a key without braces: CRC-16/XMODEM, as the cluster specification of Redis has it.
fn slot(key: &str) -> u16 {
    let crc = key.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(
            crc ^ (u16::from(byte) << 8),
            |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
            },
        )
    });
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        // The check value of CRC-16/XMODEM, and the specification's example.
        assert_eq!(slot("123456789"), 0x31c3 % SLOTS);
        assert_eq!(slot("foo"), 12_182);
    }

    #[test]
    fn a_cluster_has_a_mark_in_each_range_of_slots() {
        let names = names(Uuid::from_u128(7), true);
        let ranges: Vec<_> = names.iter().map(|name| slot(name) / (SLOTS / RANGES)).collect();
        assert_eq!(ranges, (0..RANGES).collect::<Vec<_>>());
    }
}
