//! What somebody does with a map: open it at a place that many know, pan, zoom, go back, look for a while.
//!
//! Invariant: a person's steps follow from the seed, the person's number and the tilesets alone. Neither
//! the server's answers nor their times change what is looked at next, nor when: the pauses are part of
//! the sequence. So a slow server is asked for as much as a fast one, and its slowness is seen in full.

use std::sync::Arc;
use std::time::Duration;

use super::random::{Random, Zipf};
use super::view::{Ground, Screen, View};

/// Places that people open a map at, in each tileset.
const PLACES: u32 = 1000;
/// How steeply their popularity falls.
const POPULARITY: f64 = 1.0;
/// Places lie around so many towns.
const TOWNS: u32 = 40;
/// Of a hundred who have just zoomed, so many zoom on the same way: a place is found from far out.
const ZOOMS_ON: u32 = 45;
/// How many views somebody can go back.
const REMEMBERED: usize = 8;

/// One thing that a person does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Opens the map at a place.
    Open,
    /// Moves by half a screen.
    Pan,
    /// Zooms in by one level.
    ZoomIn,
    /// Zooms out by one level.
    ZoomOut,
    /// Returns to the view before.
    Back,
}

/// A view, and how long it is looked at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// How it came to it.
    pub act: Act,
    /// What is looked at.
    pub view: View,
    /// The pause until the next step.
    pub pause: Duration,
}

/// A place: a middle and a zoom.
#[derive(Debug, Clone, Copy)]
struct Place {
    x: f64,
    y: f64,
    z: u8,
}

/// What all people have in common: the tilesets, the places, and the size of their screens.
#[derive(Debug)]
pub struct World {
    grounds: Vec<Ground>,
    places: Vec<Vec<Place>>,
    popularity: Zipf,
    screen: Screen,
    pause: Duration,
    seed: u64,
}

impl World {
    /// The world of a seed. `pause` is how long a view is looked at on average.
    pub fn new(seed: u64, grounds: Vec<Ground>, screen: Screen, pause: Duration) -> Self {
        let places = (0..)
            .zip(&grounds)
            .map(|(number, ground)| places(seed, number, ground, screen))
            .collect();
        Self {
            grounds,
            places,
            popularity: Zipf::new(PLACES, POPULARITY),
            screen,
            pause,
            seed,
        }
    }

    /// The tilesets.
    pub fn grounds(&self) -> &[Ground] {
        &self.grounds
    }

    /// The screens.
    pub fn screen(&self) -> Screen {
        self.screen
    }
}

/// Places around towns: where people live, and not where nobody does.
fn places(seed: u64, number: u64, ground: &Ground, screen: Screen) -> Vec<Place> {
    // People count from 0 upwards, tilesets from the end downwards: no stream is used twice.
    let mut random = Random::derived(seed, u64::MAX - number);
    let area = Area::of(ground);
    let towns: Vec<(f64, f64)> = (0..TOWNS)
        .map(|_| area.at(random.part(), random.part()))
        .collect();
    let low = (ground.minzoom..ground.maxzoom)
        .find(|&z| View::shown(z, ground, screen).0 < area.width)
        .unwrap_or(ground.maxzoom);
    (0..PLACES)
        .map(|_| {
            let (x, y) = towns[random.below(TOWNS) as usize];
            // The sum of two is nearer to the middle, as a town is.
            let mut aside = |width: f64| (random.part() + random.part() - 1.0) * width * 0.06;
            let (x, y) = area.clamp(x + aside(area.width), y + aside(area.height));
            let span = u32::from(ground.maxzoom - low);
            let z = random.below(span + 1) + random.below(span + 1);
            let z = u8::try_from(z.div_ceil(2)).unwrap_or(0);
            Place { x, y, z: low + z }
        })
        .collect()
}

/// A tileset's bounds as shares of the map; over the antimeridian it goes on past 1.
#[derive(Debug, Clone, Copy)]
struct Area {
    left: f64,
    top: f64,
    width: f64,
    height: f64,
}

impl Area {
    fn of(ground: &Ground) -> Self {
        let [left, top, right, bottom] = ground.bounds.shares();
        let width = if left <= right {
            right - left
        } else {
            right + 1.0 - left
        };
        Self {
            left,
            top,
            width,
            height: bottom - top,
        }
    }

    fn at(self, x: f64, y: f64) -> (f64, f64) {
        self.clamp(self.left + x * self.width, self.top + y * self.height)
    }

    /// The nearest middle that is within the bounds; a whole map has no end in the east.
    fn clamp(self, x: f64, y: f64) -> (f64, f64) {
        let y = y.clamp(self.top, self.top + self.height);
        let x = if self.width >= 1.0 {
            x
        } else {
            // Measured from the west edge, so that an area over the antimeridian is one piece.
            let from_left = x - self.left;
            let from_left = from_left - (from_left - self.width / 2.0).round();
            self.left + from_left.clamp(0.0, self.width)
        };
        (x.rem_euclid(1.0), y)
    }
}

/// A person's steps, without an end.
#[derive(Debug, Clone)]
pub struct Walk {
    world: Arc<World>,
    random: Random,
    view: Option<View>,
    last: Act,
    before: Vec<View>,
}

impl Walk {
    /// The steps of one of the people in a world.
    pub fn new(world: Arc<World>, person: u32) -> Self {
        let random = Random::derived(world.seed, u64::from(person));
        Self {
            world,
            random,
            view: None,
            last: Act::Open,
            before: Vec::new(),
        }
    }

    fn open(&mut self) -> View {
        let tilesets = u32::try_from(self.world.grounds.len()).unwrap_or(u32::MAX);
        let ground = self.random.below(tilesets) as usize;
        let rank = self.world.popularity.draw(&mut self.random);
        let place = self.world.places[ground][rank];
        View {
            ground,
            z: place.z,
            x: place.x,
            y: place.y,
        }
    }

    fn pan(&mut self, view: View) -> View {
        // Of nine directions the middle one is none.
        let direction = self.random.below(8);
        let direction = if direction >= 4 {
            direction + 1
        } else {
            direction
        };
        let by = |number: u32| f64::from(number) - 1.0;
        let (dx, dy) = (by(direction % 3), by(direction / 3));
        let ground = &self.world.grounds[view.ground];
        let (wide, high) = View::shown(view.z, ground, self.world.screen);
        let (x, y) = Area::of(ground).clamp(view.x + dx * wide / 2.0, view.y + dy * high / 2.0);
        View { x, y, ..view }
    }

    /// Zooms towards a point of the screen that is somewhere about its middle.
    fn zoom(&mut self, view: View, z: u8) -> View {
        let ground = &self.world.grounds[view.ground];
        let (wide, high) = View::shown(view.z.max(z), ground, self.world.screen);
        let aside = [self.random.part() - 0.5, self.random.part() - 0.5];
        let (x, y) = Area::of(ground).clamp(
            view.x + aside[0] * wide / 2.0,
            view.y + aside[1] * high / 2.0,
        );
        View { z, x, y, ..view }
    }

    /// Mostly short, sometimes long: exponential, within a twentieth and four times the average.
    fn pause(&mut self) -> Duration {
        let times = -(1.0 - self.random.part()).ln();
        self.world.pause.mul_f64(times.clamp(0.05, 4.0))
    }
}

impl Iterator for Walk {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let drawn = self.random.below(100);
        let zooms_on = self.random.below(100) < ZOOMS_ON;
        let (act, view) = match self.view {
            None => (Act::Open, self.open()),
            Some(view) => {
                let ground = &self.world.grounds[view.ground];
                let (minzoom, maxzoom) = (ground.minzoom, ground.maxzoom);
                let deeper = view.z < maxzoom;
                let higher = view.z > minzoom;
                match (self.last, drawn) {
                    (Act::ZoomIn, _) if zooms_on && deeper => {
                        (Act::ZoomIn, self.zoom(view, view.z + 1))
                    }
                    (Act::ZoomOut, _) if zooms_on && higher => {
                        (Act::ZoomOut, self.zoom(view, view.z - 1))
                    }
                    (_, 0..5) => (Act::Open, self.open()),
                    (_, 5..17) if deeper => (Act::ZoomIn, self.zoom(view, view.z + 1)),
                    (_, 17..25) if higher => (Act::ZoomOut, self.zoom(view, view.z - 1)),
                    (_, 25..37) if !self.before.is_empty() => {
                        (Act::Back, self.before.pop().unwrap_or(view))
                    }
                    _ => (Act::Pan, self.pan(view)),
                }
            }
        };
        match (act, self.view) {
            (Act::Open, _) => self.before.clear(),
            (Act::Back, _) | (_, None) => {}
            (_, Some(view)) => {
                if self.before.len() == REMEMBERED {
                    self.before.remove(0);
                }
                self.before.push(view);
            }
        }
        self.view = Some(view);
        self.last = act;
        let pause = self.pause();
        Some(Step { act, view, pause })
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::ground;
    use super::*;
    use crate::tile::Bounds;

    fn world(seed: u64, bounds: Bounds) -> Arc<World> {
        let grounds = vec![ground(0, 12, bounds), ground(3, 5, Bounds::WORLD)];
        let pause = Duration::from_secs(4);
        Arc::new(World::new(seed, grounds, Screen::default(), pause))
    }

    fn alps() -> Bounds {
        Bounds::new([5.0, 44.0, 16.0, 48.5]).unwrap()
    }

    fn steps(seed: u64, person: u32) -> Vec<Step> {
        Walk::new(world(seed, alps()), person).take(300).collect()
    }

    #[test]
    fn one_seed_makes_the_same_steps_and_another_makes_others() {
        assert_eq!(steps(7, 3), steps(7, 3));
        assert_ne!(steps(7, 3), steps(7, 4));
        assert_ne!(steps(7, 3), steps(8, 3));
    }

    #[test]
    fn people_stay_within_zooms_and_bounds() {
        let fiji = Bounds::new([176.0, -20.0, -178.0, -15.0]).unwrap();
        for bounds in [alps(), fiji, Bounds::WORLD] {
            let world = world(1, bounds);
            for step in (0..20).flat_map(|n| Walk::new(world.clone(), n).take(200)) {
                let ground = &world.grounds()[step.view.ground];
                assert!((ground.minzoom..=ground.maxzoom).contains(&step.view.z));
                assert!((0.0..1.0).contains(&step.view.x) && (0.0..=1.0).contains(&step.view.y));
                let tiles = step.view.tiles(ground, world.screen());
                assert!(!tiles.is_empty(), "{step:?}");
            }
        }
    }

    #[test]
    fn people_do_all_that_people_do() {
        let all: Vec<Step> = (0..20).flat_map(|person| steps(5, person)).collect();
        let share = |act: Act| {
            let count = all.iter().filter(|step| step.act == act).count();
            count * 100 / all.len()
        };
        assert!((40..70).contains(&share(Act::Pan)), "{}", share(Act::Pan));
        for act in [Act::Open, Act::ZoomIn, Act::ZoomOut, Act::Back] {
            assert!((2..25).contains(&share(act)), "{act:?} {}", share(act));
        }
        // Who zooms in goes on more often than others begin.
        let pairs = all.windows(2).filter(|pair| pair[0].act == Act::ZoomIn);
        let on = pairs.clone().filter(|pair| pair[1].act == Act::ZoomIn);
        let on = on.count() * 100 / pairs.count();
        let all_in = share(Act::ZoomIn);
        assert!(on > all_in * 3 / 2, "{on} {all_in}");
        let sum: Duration = all.iter().map(|step| step.pause).sum();
        let mean = sum / u32::try_from(all.len()).unwrap();
        assert!((3..5).contains(&mean.as_secs()), "{mean:?}");
    }

    #[test]
    fn some_places_are_opened_by_many() {
        let world = world(2, Bounds::WORLD);
        let mut opened = std::collections::HashMap::new();
        for person in 0..2000 {
            let view = Walk::new(world.clone(), person).next().unwrap().view;
            *opened.entry(format!("{view:?}")).or_insert(0_u32) += 1;
        }
        let most = opened.values().max().copied().unwrap_or(0);
        assert!(
            (80..250).contains(&most),
            "{most} of 2000 at the best known place"
        );
        assert!(opened.len() > 300, "{} places", opened.len());
    }
}
