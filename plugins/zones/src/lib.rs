//! Flights by the time zone of the airport that they go to, from west to east; those to airports that the table lacks have a
//! place of their own behind them.

use std::collections::BTreeMap;

use pelton_sdk::{Partitioner, Record};

/// `airport,hours`: how its clocks are ahead of UTC. Of `airports.csv` of the flights' data, without two whose hours are wrong in it.
const AIRPORTS: &str = include_str!("../airports.csv");

struct Zones {
    /// By airport: its zone, by number from west to east.
    airports: BTreeMap<&'static [u8], u32>,
    zones: u32,
}

impl Default for Zones {
    fn default() -> Zones {
        let rows: Vec<(&str, i32)> = AIRPORTS
            .lines()
            .filter_map(|line| line.split_once(','))
            .filter_map(|(airport, hours)| Some((airport, hours.parse().ok()?)))
            .collect();
        let mut zones: Vec<i32> = rows.iter().map(|(_, hours)| *hours).collect();
        zones.sort_unstable();
        zones.dedup();
        let number = |hours: i32| zones.iter().position(|zone| *zone == hours).unwrap_or_default() as u32;
        let airports = rows.iter().map(|(airport, hours)| (airport.as_bytes(), number(*hours))).collect();
        Zones { airports, zones: zones.len() as u32 }
    }
}

impl Partitioner for Zones {
    fn partition(&mut self, record: Record<'_>, partitions: u32) -> u32 {
        let airport = record.key().unwrap_or_default();
        let zone = self.airports.get(airport).copied().unwrap_or(self.zones);
        // With fewer partitions than zones, neighbours share one.
        (u64::from(zone) * u64::from(partitions) / u64::from(self.zones + 1)) as u32
    }
}

pelton_sdk::export_partitioner!(Zones);

#[cfg(test)]
mod tests {
    use super::*;
    use pelton_sdk::testing::{TestRecord, partitions};

    #[test]
    fn zones_are_in_order_and_unknown_airports_behind_them() {
        let keys = ["HNL", "LAX", "DEN", "ORD", "ATL", "SJU", ""];
        let records: Vec<_> = keys.iter().map(|key| TestRecord::default().with_key(*key)).collect();
        let placed = |count| partitions::<Zones>(&[], &records, count).unwrap();
        assert_eq!(placed(7), [0, 2, 3, 4, 5, 6, 6]);
        assert_eq!(placed(1), [0; 7]);
        assert!(placed(3).is_sorted() && placed(3).contains(&2));
    }
}
