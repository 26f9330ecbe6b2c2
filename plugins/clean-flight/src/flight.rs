//! Reading a flight and writing it as JSON: plain functions over bytes, the same in a plugin and in a native program.

use std::fmt;

/// The header line of nycflights13.
pub const NYCFLIGHTS13: &str = "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,\
                                carrier,flight,tailnum,origin,dest,air_time,distance,hour,minute,time_hour";
/// More columns than this are not flights.
const MAX_COLUMNS: usize = 64;
/// What the columns that are read are called.
const NAMES: [&str; FIELDS] = [
    "dep_time",
    "dep_delay",
    "arr_delay",
    "carrier",
    "flight",
    "tailnum",
    "origin",
    "dest",
    "air_time",
    "distance",
    "time_hour",
];
const FIELDS: usize = 11;

/// Where the fields of a flight are in a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    header: String,
    count: usize,
    /// For each column of a line, the field that it is; [`FIELDS`] for columns that are not read.
    fields: Vec<usize>,
}

impl Default for Columns {
    fn default() -> Columns {
        Columns::parse(NYCFLIGHTS13).expect("the header of nycflights13 has all columns")
    }
}

/// A flight, borrowed from its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flight<'a> {
    /// Two letters of the airline.
    pub carrier: &'a str,
    /// Flight number.
    pub flight: i64,
    /// Tail number of the plane, if known.
    pub tailnum: Option<&'a str>,
    /// Airport it leaves from.
    pub origin: &'a str,
    /// Airport it goes to.
    pub dest: &'a str,
    /// Scheduled hour of departure, as the data has it.
    pub time_hour: &'a str,
    /// Whether it left.
    pub departed: bool,
    /// Minutes of delay at departure, if it left.
    pub dep_delay: Option<i64>,
    /// Minutes of delay at arrival, if it arrived where it should.
    pub arr_delay: Option<i64>,
    /// Minutes in the air, if known.
    pub air_time: Option<i64>,
    /// Miles.
    pub distance: Option<i64>,
}

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line<'a> {
    /// The names of the columns.
    Header,
    /// A flight.
    Flight(Flight<'a>),
}

/// Why a line is no flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IllFormed {
    /// It has another number of columns.
    Columns {
        /// How many it has.
        found: usize,
        /// How many it should have.
        expected: usize,
    },
    /// A column that must be there is empty.
    Missing(&'static str),
    /// A column is not a whole number.
    NotANumber(&'static str, String),
    /// The line is not UTF-8.
    NotText,
}

impl fmt::Display for IllFormed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IllFormed::Columns { found, expected } => write!(f, "it has {found} columns, not {expected}"),
            IllFormed::Missing(name) => write!(f, "`{name}` is missing"),
            IllFormed::NotANumber(name, text) => write!(f, "`{name}` is `{text}`, not a whole number"),
            IllFormed::NotText => write!(f, "it is not UTF-8"),
        }
    }
}

impl Columns {
    /// Reads a header line.
    ///
    /// # Errors
    /// Which column is missing, for people.
    pub fn parse(header: &str) -> Result<Columns, String> {
        let names: Vec<&str> = header.trim().split(',').map(str::trim).collect();
        if names.len() > MAX_COLUMNS {
            return Err(format!("columns has {} names, but at most {MAX_COLUMNS} are allowed", names.len()));
        }
        if let Some(missing) = NAMES.iter().find(|name| !names.contains(name)) {
            return Err(format!("columns has no `{missing}`"));
        }
        let field = |name: &&str| NAMES.iter().position(|known| known == name).unwrap_or(FIELDS);
        Ok(Columns { header: names.join(","), count: names.len(), fields: names.iter().map(field).collect() })
    }

    /// Reads a line.
    ///
    /// # Errors
    /// Why it is no flight.
    pub fn read<'a>(&self, line: &'a [u8]) -> Result<Line<'a>, IllFormed> {
        let line = std::str::from_utf8(line).map_err(|_| IllFormed::NotText)?;
        let line = line.trim_end_matches(['\r', '\n']);
        let mut found = [""; FIELDS];
        let (mut count, mut start) = (0, 0);
        // By hand: columns are a few bytes long, and `split` searches each as if it were a page.
        let commas = line.bytes().enumerate().filter(|(_, byte)| *byte == b',').map(|(at, _)| at);
        for end in commas.chain([line.len()]) {
            if let Some(slot) = self.fields.get(count).and_then(|&field| found.get_mut(field)) {
                *slot = &line[start..end];
            }
            (count, start) = (count + 1, end + 1);
        }
        if count != self.count {
            return Err(IllFormed::Columns { found: count, expected: self.count });
        }
        if line == self.header {
            return Ok(Line::Header);
        }
        let [
            dep_time,
            dep_delay,
            arr_delay,
            carrier,
            flight,
            tailnum,
            origin,
            dest,
            air_time,
            distance,
            time_hour,
        ] = found;
        let needed = |name, text| known(text).ok_or(IllFormed::Missing(name));
        Ok(Line::Flight(Flight {
            carrier: needed("carrier", carrier)?,
            flight: number("flight", needed("flight", flight)?)?.ok_or(IllFormed::Missing("flight"))?,
            tailnum: known(tailnum),
            origin: needed("origin", origin)?,
            dest: needed("dest", dest)?,
            time_hour: needed("time_hour", time_hour)?,
            departed: number("dep_time", dep_time)?.is_some(),
            dep_delay: number("dep_delay", dep_delay)?,
            arr_delay: number("arr_delay", arr_delay)?,
            air_time: number("air_time", air_time)?,
            distance: number("distance", distance)?,
        }))
    }
}

impl Flight<'_> {
    /// How late it was: by minutes of arrival delay.
    pub fn delay_class(&self) -> &'static str {
        match self.arr_delay {
            None if self.departed => "diverted",
            None => "cancelled",
            Some(..15) => "on-time",
            Some(15..60) => "minor",
            Some(60..180) => "major",
            Some(180..) => "severe",
        }
    }

    /// Appends the flight as one JSON object.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"carrier\":");
        push_text(out, self.carrier);
        out.extend_from_slice(b",\"flight\":");
        push_number(out, Some(self.flight));
        out.extend_from_slice(b",\"tailnum\":");
        match self.tailnum {
            Some(tailnum) => push_text(out, tailnum),
            None => out.extend_from_slice(b"null"),
        }
        for (name, text) in
            [(",\"origin\":", self.origin), (",\"dest\":", self.dest), (",\"time_hour\":", self.time_hour)]
        {
            out.extend_from_slice(name.as_bytes());
            push_text(out, text);
        }
        for (name, value) in [
            (",\"dep_delay\":", self.dep_delay),
            (",\"arr_delay\":", self.arr_delay),
            (",\"air_time\":", self.air_time),
            (",\"distance\":", self.distance),
        ] {
            out.extend_from_slice(name.as_bytes());
            push_number(out, value);
        }
        out.extend_from_slice(b",\"delay_class\":\"");
        out.extend_from_slice(self.delay_class().as_bytes());
        out.extend_from_slice(b"\"}");
    }
}

/// R writes a missing value as `NA`, others leave it empty.
fn known(text: &str) -> Option<&str> {
    (!text.is_empty() && text != "NA").then_some(text)
}

fn number(name: &'static str, text: &str) -> Result<Option<i64>, IllFormed> {
    let Some(text) = known(text) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| IllFormed::NotANumber(name, text.chars().take(32).collect()))
}

fn push_number(out: &mut Vec<u8>, number: Option<i64>) {
    let Some(number) = number else {
        out.extend_from_slice(b"null");
        return;
    };
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let is_plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    if text.bytes().all(is_plain) {
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
        return;
    }
    for &byte in text.as_bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..0x20 => {
                let hex = |digit: u8| b"0123456789abcdef"[digit as usize];
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte & 15)]);
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(arr_delay: &str, dep_time: &str) -> String {
        format!(
            "2013,1,1,{dep_time},515,-2,830,819,{arr_delay},UA,1545,,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z"
        )
    }

    #[test]
    fn classes_go_by_arrival_delay() {
        for (arr_delay, dep_time, expect) in [
            ("-30", "517", "on-time"),
            ("14", "517", "on-time"),
            ("15", "517", "minor"),
            ("59", "517", "minor"),
            ("60", "517", "major"),
            ("179", "517", "major"),
            ("180", "517", "severe"),
            ("NA", "517", "diverted"),
            ("NA", "NA", "cancelled"),
            ("", "", "cancelled"),
        ] {
            let line = line(arr_delay, dep_time);
            let Ok(Line::Flight(flight)) = Columns::default().read(line.as_bytes()) else { panic!("{line}") };
            assert_eq!(flight.delay_class(), expect, "{arr_delay} {dep_time}");
        }
    }

    #[test]
    fn json() {
        let line = line("11", "517") + "\r\n";
        let Ok(Line::Flight(flight)) = Columns::default().read(line.as_bytes()) else { panic!("{line}") };
        let mut out = Vec::new();
        Flight { carrier: "a\"\\\n", ..flight }.write_json(&mut out);
        assert_eq!(
            String::from_utf8_lossy(&out),
            r#"{"carrier":"a\"\\\u000a","flight":1545,"tailnum":null,"origin":"EWR","dest":"IAH","time_hour":"2013-01-01T10:00:00Z","dep_delay":-2,"arr_delay":11,"air_time":227,"distance":1400,"delay_class":"on-time"}"#
        );
    }

    #[test]
    fn what_is_no_flight() {
        let check = |line: &[u8], expect: &str| {
            let got = Columns::default().read(line).map_err(|error| error.to_string());
            assert_eq!(got, Err(expect.to_owned()));
        };
        check(b"", "it has 1 columns, not 19");
        check(b"\xff", "it is not UTF-8");
        check(line("1", "x").as_bytes(), "`dep_time` is `x`, not a whole number");
        check(line("1", "1").replace("UA", "").as_bytes(), "`carrier` is missing");
        check((line("1", "1") + ",").as_bytes(), "it has 20 columns, not 19");
        assert_eq!(Columns::default().read(NYCFLIGHTS13.as_bytes()), Ok(Line::Header));
    }

    #[test]
    fn columns_may_come_in_another_order() {
        let header = NYCFLIGHTS13.split(',').rev().collect::<Vec<_>>().join(",");
        let columns = Columns::parse(&header).expect("has all");
        let reversed = line("11", "517").split(',').rev().collect::<Vec<_>>().join(",");
        let straight = line("11", "517");
        assert_eq!(columns.read(reversed.as_bytes()), Columns::default().read(straight.as_bytes()));
        assert_eq!(Columns::parse("a,b"), Err("columns has no `dep_time`".to_owned()));
    }
}
