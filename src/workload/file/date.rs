//! Dates and times as tools write them, exact to the picosecond.

use chrono::NaiveDate;

const PS_PER_S: i128 = crate::units::PS_PER_S as i128;

/// Picoseconds since 1970 of a date and time: `2023-11-16 18:15:46.6805900`, with `T` for the space, `/` for the hyphens, with up to
/// 12 digits behind the point, and with `Z`, `UTC` or an offset such as `+01:00`, `+0100` or `+01` at its end, also behind a space.
/// Without one of them the time is taken as UTC. Gregorian calendar, no leap seconds.
pub(super) fn date_ps(text: &str) -> Option<i128> {
    let (date, time) = text.split_once([' ', 'T', 't'])?;
    let mark = if date.contains('/') { '/' } else { '-' };
    let mut date = date.split(mark);
    let (year, month, day) = (digits(date.next()?, 4)?, digits(date.next()?, 2)?, digits(date.next()?, 2)?);
    if date.next().is_some() {
        return None;
    }
    let day = NaiveDate::from_ymd_opt(year as i32, month as u32, day as u32)?;
    let days = i128::from(day.signed_duration_since(NaiveDate::default()).num_days());

    let (time, offset) = match time.find(['Z', 'z', 'U', '+', '-']) {
        None => (time, 0),
        Some(at) => (time[..at].strip_suffix(' ').unwrap_or(&time[..at]), offset_minutes(&time[at..])?),
    };
    let (clock, fraction) = time.split_once(['.', ',']).unwrap_or((time, "0"));
    let mut clock = clock.split(':').map(|part| digits(part, 2));
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    if clock.next().is_some() || fraction.len() > 12 {
        return None;
    }
    let part = digits(fraction, fraction.len())? * 10_i128.pow(12 - fraction.len() as u32);
    let minutes = (days * 24 + within(hour, 23)?) * 60 + within(minute, 59)? - offset;
    Some((minutes * 60 + within(second, 59)?) * PS_PER_S + part)
}

/// Minutes by which a clock with this mark is ahead of UTC.
fn offset_minutes(mark: &str) -> Option<i128> {
    if matches!(mark, "Z" | "z" | "UTC") {
        return Some(0);
    }
    let (sign, size) = mark.split_at_checked(1)?;
    let (hours, minutes) = match (size.split_once(':'), size.len()) {
        (Some(parts), _) => parts,
        (None, 4) => size.split_at_checked(2)?,
        (None, _) => (size, "00"),
    };
    let minutes = within(digits(hours, 2)?, 23)? * 60 + within(digits(minutes, 2)?, 59)?;
    match sign {
        "+" => Some(minutes),
        "-" => Some(-minutes),
        _ => None,
    }
}

/// A number of exactly `count` digits.
fn digits(text: &str, count: usize) -> Option<i128> {
    let right = count > 0 && text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| right)
}

fn within(number: i128, most: i128) -> Option<i128> {
    (number <= most).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_exact() {
        let ps = |text| date_ps(text).unwrap_or_else(|| panic!("{text}"));
        for (later, earlier, apart) in [
            ("2023-11-16 18:15:46.6805900", "2023-11-16 18:15:46", 680_590_000_000),
            ("2023-11-16 18:15:46.000000000001", "2023-11-16 18:15:46", 1),
            ("2024-01-01 00:00:00", "2023-12-31 23:59:59.9", PS_PER_S / 10),
            ("2024-03-01 00:00:00", "2024-02-28 00:00:00", 2 * 86_400 * PS_PER_S),
            ("2023-03-01 00:00:00", "2023-02-28 00:00:00", 86_400 * PS_PER_S),
            ("2100-03-01T00:00:00Z", "2100-02-28T00:00:00Z", 86_400 * PS_PER_S),
            ("2024-05-10 00:00:00.009930+00:00", "2024-05-10 00:00:00", 9_930_000_000),
            ("2024-05-10 00:00:00", "2024-05-10 01:30:00+01:30", 0),
            ("2024-05-10 00:00:00-02:00", "2024-05-10 00:00:00", 7200 * PS_PER_S),
            ("2024-05-10 00:00:00 +0130", "2024-05-10T00:00:00+01:30", 0),
            ("2024-05-10 00:00:00+01", "2024-05-09t23:00:00z", 0),
            ("2024/05/10 00:00:00,25 UTC", "2024-05-10 00:00:00", PS_PER_S / 4),
            ("1970-01-01 00:00:01", "1970-01-01 00:00:00", PS_PER_S),
        ] {
            assert_eq!(ps(later) - ps(earlier), apart, "{later}");
        }
        // `date -u -d "2024-05-10 00:00:00" +%s`
        assert_eq!(ps("2024-05-10 00:00:00"), 1_715_299_200 * PS_PER_S);
        for wrong in [
            "",
            "2023-11-16",
            "2023-11-16 18:15",
            "2023-11-16 18:15:46.",
            "2023-11-16 18:15:46.0000000000001",
            "2023-11-16 24:00:00",
            "2023-11-16 18:60:00",
            "2023-11-16 18:15:60",
            "2023-02-29 00:00:00",
            "2023-00-01 00:00:00",
            "2023-13-01 00:00:00",
            "2023-01-00 00:00:00",
            "23-01-01 00:00:00",
            "2023-01-01-01 00:00:00",
            "2023-01-01 00:00:00:00",
            "2023-01-01 00:00:00+1",
            "2023-01-01 00:00:00Z1",
            "2023-01-01 00:00:+1",
            "-023-01-01 00:00:00",
            "nan",
            "05/10/2024 00:00:00",
            "2024-05/10 00:00:00",
            "2024-05-10 00:00:00+100",
            "2024-05-10 00:00:00 PST",
            "2024-05-10 00:00:00  Z",
            "2024-05-10 00:00:00+\u{e9}1",
        ] {
            assert_eq!(date_ps(wrong), None, "{wrong}");
        }
    }

    /// Every day of 800 years comes a day after the one before.
    #[test]
    fn no_day_is_lost() {
        let mut last = ps_of(1599, 12, 31);
        for year in 1600..2400 {
            for month in 1..=12 {
                for day in 1..=31 {
                    let text = format!("{year:04}-{month:02}-{day:02} 00:00:00");
                    if let Some(ps) = date_ps(&text) {
                        assert_eq!(ps - last, 86_400 * PS_PER_S, "{text}");
                        last = ps;
                    }
                }
            }
        }
        // 800 years of the Gregorian calendar are 292194 days (twice 146097).
        assert_eq!(last - ps_of(1599, 12, 31), 292_194 * 86_400 * PS_PER_S);
    }

    fn ps_of(year: u32, month: u32, day: u32) -> i128 {
        date_ps(&format!("{year:04}-{month:02}-{day:02} 00:00:00")).expect("a date")
    }
}
