//! `Gallery`: the pictures that students look at.

use std::sync::RwLock;

use rand::RngExt;

use crate::measure::Picture;

/// A class looks at what its teacher has made lately.
const RECENT: usize = 20;

/// Pictures in the order they were made.
#[derive(Debug, Default)]
pub struct Gallery(RwLock<Vec<Picture>>);

impl Gallery {
    /// Adds a picture; the newest ones are looked at.
    pub fn add(&self, picture: Picture) {
        let mut pictures = self.0.write().expect("nothing panics while it holds this lock");
        if pictures.len() >= 2 * RECENT {
            pictures.drain(..RECENT);
        }
        pictures.push(picture);
    }

    /// Returns one of the latest, newer ones more often; None while there are none.
    pub fn pick(&self, rng: &mut impl rand::Rng) -> Option<Picture> {
        let pictures = self.0.read().expect("nothing panics while it holds this lock");
        let recent = pictures.len().min(RECENT);
        // The smaller of two draws: twice as likely the newest as the average one.
        let age = (recent > 0).then(|| rng.random_range(0..recent).min(rng.random_range(0..recent)))?;
        pictures.get(pictures.len() - 1 - age).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn the_latest_are_looked_at_and_the_newest_most_often() {
        let (gallery, mut rng) = (Gallery::default(), StdRng::seed_from_u64(1));
        assert_eq!(gallery.pick(&mut rng), None);
        for number in 0..100 {
            gallery.add(Picture { url: number.to_string(), sha256: String::new(), bytes: 0 });
        }
        let mut seen = [0_u32; 100];
        for _ in 0..10_000 {
            seen[gallery.pick(&mut rng).unwrap().url.parse::<usize>().unwrap()] += 1;
        }
        assert_eq!(seen[..80].iter().sum::<u32>(), 0);
        assert!(seen[99] > seen[90] && seen[90] > seen[80] && seen[80] > 0, "{seen:?}");
    }
}
