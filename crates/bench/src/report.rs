//! Medians, ratios and the table that a person reads.

use std::collections::BTreeMap;

use crate::figures::Figures;
use crate::start::Fact;
use crate::wanted::{Bound, FACTS_AT_MOST, Measure, RESIDENT_MIB_MAX, WANTED, WRITTEN_PER_BYTE_MAX, Wanted};
use crate::works::WORKS;
use crate::{machine, peers};

/// What the columns mean.
const LEGEND: &str = "\
Medians over rounds. server us, client us: CPU microseconds per record. cores s/c/o: processor cores that server, client and
other programs took. MiB: most memory the server had resident in any run. dev B/B, own B/B: bytes written per byte acknowledged,
counted at the device (everyone's) and for the server's processes. flush/r: flushes that reached the device per record
(everyone's). sync/r: syncs per record by the server's own count.";

/// The middle of `values`; of an even number, the mean of the two in the middle.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some((upper + sorted.get(sorted.len() / 2 - 1)?) / 2.0)
}

/// The runs of one side in one work: the quiet ones, or all when none was quiet.
struct Runs<'a> {
    used: Vec<&'a Figures>,
    all: usize,
    quiet: usize,
}

impl<'a> Runs<'a> {
    fn of(figures: &'a [Figures], work: &str, side: &str) -> Self {
        let all: Vec<&Figures> = figures.iter().filter(|figure| figure.work == work && figure.side == side).collect();
        let quiet: Vec<&Figures> = all.iter().copied().filter(|figure| !figure.noisy).collect();
        let counts = (all.len(), quiet.len());
        Self { used: if quiet.is_empty() { all } else { quiet }, all: counts.0, quiet: counts.1 }
    }

    fn median(&self, figure: impl Fn(&Figures) -> Option<f64>) -> Option<f64> {
        median(&self.used.iter().filter_map(|run| figure(run)).collect::<Vec<_>>())
    }

    fn measured(&self, measure: Measure) -> Option<f64> {
        self.median(|run| match measure {
            Measure::Rate => Some(run.records_per_second),
            Measure::Median => run.p50_us,
            Measure::ServerCpu => Some(run.server_cpu_us_per_record),
        })
    }

    fn most(&self, figure: impl Fn(&Figures) -> f64) -> Option<f64> {
        self.used.iter().map(|run| figure(run)).reduce(f64::max)
    }
}

/// The whole table.
pub fn table(figures: &[Figures], facts: &[Fact]) -> String {
    let mut lines = Vec::new();
    let titles = WORKS.iter().map(|work| (work.name, work.title));
    let peers_title =
        "durable publish by 64 waiting clients, with the harness's own client and with a library of the engine's own";
    for (work, title) in titles.chain([(peers::WORK, peers_title)]) {
        lines.extend(work_table(figures, work, title));
    }
    lines.extend(limits(figures));
    lines.extend(fact_lines(facts));
    lines.push(LEGEND.to_owned());
    if figures.iter().any(|figure| figure.noisy) {
        lines.push(format!(
            "A run is noisy when other programs took more than {} cores. Medians are over the quiet runs; with none, over all, marked *.",
            machine::NOISE_CORES
        ));
    }
    lines.join("\n") + "\n"
}

fn sides(figures: &[Figures], work: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for figure in figures.iter().filter(|figure| figure.work == work) {
        if !found.contains(&figure.side) {
            found.push(figure.side.clone());
        }
    }
    // Baton stands first, whoever ran first.
    found.sort_by_key(|side| (!side.starts_with("baton"), side.clone()));
    found
}

fn work_table(figures: &[Figures], work: &str, title: &str) -> Vec<String> {
    let sides = sides(figures, work);
    if sides.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![
        format!("{work}: {title}"),
        "  side                      records/s           min-max   p50 ms   p99 ms server us client us    cores s/c/o    MiB dev B/B own B/B flush/r  sync/r  runs"
            .to_owned(),
    ];
    for side in sides {
        lines.push(side_line(&Runs::of(figures, work, &side), &side));
    }
    lines.extend(WANTED.iter().filter(|wanted| wanted.of.0 == work).filter_map(|wanted| ratio_line(figures, wanted)));
    lines.push(String::new());
    lines
}

fn side_line(runs: &Runs<'_>, side: &str) -> String {
    let number = |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |value| format!("{value:.digits$}"));
    let rates: Vec<f64> = runs.used.iter().map(|run| run.records_per_second).collect();
    let least = rates.iter().copied().reduce(f64::min);
    let most = rates.iter().copied().reduce(f64::max);
    let milliseconds = |value: Option<f64>| value.map(|micros| micros / 1e3);
    let mark = if runs.quiet == 0 { "*" } else { "" };
    let cores = [
        runs.median(|run| Some(run.server_cores)),
        runs.median(|run| Some(run.client_cores)),
        runs.median(|run| Some(run.other_cores)),
    ];
    format!(
        "  {:<25}{:>10} {:>17} {:>8} {:>8} {:>9} {:>9} {:>14} {:>6} {:>7} {:>7} {:>7} {:>7}  {} ({} quiet)",
        side,
        number(runs.measured(Measure::Rate), 0) + mark,
        format!("{}-{}", number(least, 0), number(most, 0)),
        number(milliseconds(runs.measured(Measure::Median)), 3),
        number(milliseconds(runs.median(|run| run.p99_us)), 3),
        number(runs.measured(Measure::ServerCpu), 2),
        number(runs.median(|run| Some(run.client_cpu_us_per_record)), 2),
        cores.map(|value| number(value, 2)).join("/"),
        number(runs.most(|run| run.resident_peak_mib), 0),
        number(runs.median(|run| run.device_written_per_byte), 2),
        number(runs.median(|run| Some(run.process_written_per_byte)), 2),
        number(runs.median(|run| run.flushes_per_record), 4),
        number(runs.median(|run| run.syncs_per_record), 4),
        runs.all,
        runs.quiet,
    )
}

/// The ratio of a wanted row, when both sides were measured.
fn ratio_line(figures: &[Figures], wanted: &Wanted) -> Option<String> {
    let own = Runs::of(figures, wanted.of.0, wanted.of.1).measured(wanted.measure)?;
    let (work, sides) = wanted.against;
    let others = sides.iter().filter_map(|side| {
        let figure = Runs::of(figures, work, side).measured(wanted.measure)?;
        Some((*side, figure))
    });
    // "Best" is the one hardest to beat.
    let (side, other) = others.reduce(|best, next| {
        let harder = match wanted.bound {
            Bound::AtLeast(_) => next.1 > best.1,
            Bound::AtMost(_) => next.1 < best.1,
        };
        if harder { next } else { best }
    })?;
    let ratio = own / other;
    let what = match wanted.measure {
        Measure::Rate => "records/s",
        Measure::Median => "p50",
        Measure::ServerCpu => "server CPU per record",
    };
    let against = if work == wanted.of.0 { side.to_owned() } else { format!("{side} in {work}") };
    let verdict = if wanted.bound.met(ratio) { "met" } else { "NOT MET" };
    Some(format!("  -> {what} of {} against {against}: {ratio:.2}x, wanted {}: {verdict}", wanted.of.1, wanted.bound))
}

fn limits(figures: &[Figures]) -> Vec<String> {
    let own: Vec<&Figures> = figures.iter().filter(|figure| figure.side.starts_with("baton")).collect();
    if own.is_empty() {
        return Vec::new();
    }
    let verdict = |value: f64, most: f64| if value <= most { "met" } else { "NOT MET" };
    let peak = own.iter().map(|figure| figure.resident_peak_mib).fold(0.0, f64::max);
    let mut lines = vec![
        "Baton's limits".to_owned(),
        format!(
            "  resident memory under all works: {peak:.0} MiB, wanted ≤ {RESIDENT_MIB_MAX}: {}",
            verdict(peak, RESIDENT_MIB_MAX)
        ),
    ];
    for work in ["pipe1", "pipe6", "pipe1000"] {
        let runs = Runs::of(figures, work, "baton");
        let device = runs.median(|run| run.device_written_per_byte);
        let own = runs.median(|run| Some(run.process_written_per_byte));
        // The device's count has everyone's writes in it: it judges only when nobody else was at work.
        if let Some(written) = device.filter(|_| runs.quiet > 0).or(own) {
            lines.push(format!(
                "  {work}: bytes written per byte acknowledged {:.3} at the device, {:.3} by the server, wanted ≤ {WRITTEN_PER_BYTE_MAX}: {}",
                device.unwrap_or(f64::NAN),
                own.unwrap_or(f64::NAN),
                verdict(written, WRITTEN_PER_BYTE_MAX)
            ));
        }
    }
    let falling: Vec<f64> = ["syncs1", "syncs4", "syncs16", "syncs64"]
        .iter()
        .filter_map(|work| {
            let runs = Runs::of(figures, work, "baton");
            runs.median(|run| run.syncs_per_record.or(run.flushes_per_record))
        })
        .collect();
    if falling.len() > 1 {
        let falls = falling.is_sorted_by(|earlier, later| earlier > later);
        let shown: Vec<String> = falling.iter().map(|value| format!("{value:.3}")).collect();
        let verdict = if falls { "met" } else { "NOT MET" };
        lines.push(format!(
            "  syncs per record with 1, 4, 16, 64 waiting clients: {}, wanted falling: {verdict}",
            shown.join(", ")
        ));
    }
    lines.push(String::new());
    lines
}

fn fact_lines(facts: &[Fact]) -> Vec<String> {
    let mut grouped: BTreeMap<(&str, &str), Vec<&Fact>> = BTreeMap::new();
    for fact in facts {
        grouped.entry((fact.fact, &fact.side)).or_default().push(fact);
    }
    let mut lines = Vec::new();
    for ((name, side), facts) in grouped {
        let values: Vec<f64> = facts.iter().map(|fact| fact.value).collect();
        let (Some(middle), Some(first)) = (median(&values), facts.first()) else { continue };
        let bound = FACTS_AT_MOST.iter().find(|(fact, _)| *fact == name && side == "baton");
        let verdict = bound.map_or(String::new(), |(_, most)| {
            format!(", wanted ≤ {most}: {}", if middle <= *most { "met" } else { "NOT MET" })
        });
        lines.push(format!("{name} of {side}: {middle:.1}{verdict} ({} runs; {})", values.len(), first.note));
    }
    if !lines.is_empty() {
        lines.push(String::new());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(work: &str, side: &str, rate: f64, noisy: bool) -> Figures {
        Figures { work: work.into(), side: side.into(), records_per_second: rate, noisy, ..Figures::default() }
    }

    #[test]
    fn medians_leave_noisy_runs_out_while_a_quiet_one_exists() {
        let figures = [run("wait64", "baton", 100.0, false), run("wait64", "baton", 5.0, true)];
        assert_eq!(Runs::of(&figures, "wait64", "baton").measured(Measure::Rate), Some(100.0));
        assert_eq!(Runs::of(&figures[1..], "wait64", "baton").measured(Measure::Rate), Some(5.0));
        assert!(table(&figures[1..], &[]).contains("5*"));
    }

    #[test]
    fn a_ratio_below_its_bound_is_called_not_met() {
        let figures = [run("wait64", "baton", 30.0, false), run("wait64", "kafka-sync", 3.0, false)];
        let shown = table(&figures, &[]);
        assert!(shown.contains("against kafka-sync: 10.00x, wanted ≥ 12: NOT MET"), "{shown}");
    }

    #[test]
    fn rivals_are_compared_with_the_best_of_them() {
        let figures = [
            run(peers::WORK, peers::BATON, 30.0, false),
            run(peers::WORK, "nats", 5.0, false),
            run(peers::WORK, "rocketmq", 20.0, false),
        ];
        let shown = table(&figures, &[]);
        assert!(shown.contains("against rocketmq: 1.50x, wanted ≥ 1.5: met"), "{shown}");
    }

    #[test]
    fn the_median_of_an_even_number_is_between_the_two_in_the_middle() {
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn every_compared_work_and_side_exists() {
        for wanted in WANTED {
            for work in [wanted.of.0, wanted.against.0] {
                assert!(work == peers::WORK || WORKS.iter().any(|known| known.name == work), "{work}");
            }
            if wanted.of.0 == peers::WORK {
                assert!(wanted.against.1.iter().all(|side| peers::PEERS.iter().any(|peer| peer.side == *side)));
            }
        }
    }
}
