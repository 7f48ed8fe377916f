//! Which letters are meant.

use super::Which;
use super::letter::Letter;

impl Which {
    /// Whether a letter is meant; the limit is for who counts.
    pub(super) fn is_meant(&self, letter: &Letter) -> bool {
        let fits = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|wanted| wanted == is);
        let key = letter.delivery.key.as_deref();
        fits(&self.origin_topic, &letter.origin.topic)
            && fits(&self.group, &letter.group)
            && fits(&self.class, &letter.class)
            && self.reason.as_ref().is_none_or(|part| letter.reason.contains(part))
            && self.key.as_ref().is_none_or(|wanted| key == Some(wanted.as_bytes()))
            && self.since.is_none_or(|since| letter.last_ms.is_some_and(|last| last >= since))
    }
}

#[cfg(test)]
mod tests {
    use super::super::letter::tests::letter;
    use super::*;

    fn any() -> Which {
        Which { origin_topic: None, group: None, reason: None, class: None, key: None, since: None, limit: None }
    }

    #[test]
    fn every_filter_lets_through_what_it_names_and_nothing_else() {
        let letter = letter(0, &[]);
        let text = |text: &str| Some(text.to_owned());
        assert!(any().is_meant(&letter));
        let meant = [
            Which { origin_topic: text("orders"), ..any() },
            Which { group: text("beans-svc"), ..any() },
            Which { reason: text("such"), ..any() },
            Which { class: text("permanent"), ..any() },
            Which { key: text("key-1"), ..any() },
            Which { since: Some(5000), ..any() },
        ];
        assert!(meant.iter().all(|which| which.is_meant(&letter)));
        let not_meant = [
            Which { origin_topic: text("order"), ..any() },
            Which { group: text("beans"), ..any() },
            Which { reason: text("sick"), ..any() },
            Which { class: text("exhausted"), ..any() },
            Which { key: text("key"), ..any() },
            Which { since: Some(5001), ..any() },
        ];
        assert!(!not_meant.iter().any(|which| which.is_meant(&letter)));
    }
}
