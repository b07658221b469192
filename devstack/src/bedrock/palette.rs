//! The colours of a picture: one palette per kind of light.

/// Red, green and blue, 0.0 ..= 255.0.
pub(crate) type Rgb = [f32; 3];

/// The colours one landscape is painted with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Palette {
    pub(crate) zenith: Rgb,
    pub(crate) horizon: Rgb,
    pub(crate) cloud: Rgb,
    pub(crate) sun: Rgb,
    /// Most distant hills, nearly the colour of the air.
    pub(crate) far: Rgb,
    pub(crate) near: Rgb,
    pub(crate) water: Rgb,
}

/// All palettes: morning, noon, golden hour, dusk, overcast, autumn, moonlight, spring.
pub(crate) const PALETTES: [Palette; 8] = [
    Palette {
        zenith: [96.0, 140.0, 196.0],
        horizon: [252.0, 214.0, 178.0],
        cloud: [255.0, 236.0, 218.0],
        sun: [255.0, 226.0, 170.0],
        far: [176.0, 168.0, 184.0],
        near: [46.0, 66.0, 52.0],
        water: [70.0, 96.0, 122.0],
    },
    Palette {
        zenith: [38.0, 104.0, 190.0],
        horizon: [188.0, 220.0, 240.0],
        cloud: [250.0, 252.0, 255.0],
        sun: [255.0, 250.0, 224.0],
        far: [136.0, 166.0, 190.0],
        near: [52.0, 92.0, 40.0],
        water: [34.0, 86.0, 120.0],
    },
    Palette {
        zenith: [86.0, 104.0, 150.0],
        horizon: [255.0, 186.0, 102.0],
        cloud: [255.0, 206.0, 150.0],
        sun: [255.0, 214.0, 120.0],
        far: [190.0, 138.0, 112.0],
        near: [58.0, 44.0, 34.0],
        water: [110.0, 82.0, 78.0],
    },
    Palette {
        zenith: [34.0, 32.0, 82.0],
        horizon: [232.0, 110.0, 104.0],
        cloud: [210.0, 120.0, 148.0],
        sun: [255.0, 168.0, 110.0],
        far: [118.0, 84.0, 128.0],
        near: [24.0, 22.0, 44.0],
        water: [58.0, 44.0, 88.0],
    },
    Palette {
        zenith: [128.0, 140.0, 152.0],
        horizon: [206.0, 212.0, 214.0],
        cloud: [228.0, 231.0, 232.0],
        sun: [236.0, 236.0, 226.0],
        far: [156.0, 168.0, 172.0],
        near: [56.0, 70.0, 62.0],
        water: [92.0, 108.0, 114.0],
    },
    Palette {
        zenith: [104.0, 150.0, 188.0],
        horizon: [240.0, 226.0, 196.0],
        cloud: [252.0, 244.0, 230.0],
        sun: [255.0, 232.0, 176.0],
        far: [176.0, 150.0, 128.0],
        near: [124.0, 62.0, 24.0],
        water: [74.0, 92.0, 96.0],
    },
    Palette {
        zenith: [8.0, 14.0, 38.0],
        horizon: [54.0, 82.0, 122.0],
        cloud: [70.0, 92.0, 128.0],
        sun: [226.0, 234.0, 244.0],
        far: [38.0, 58.0, 92.0],
        near: [8.0, 14.0, 22.0],
        water: [14.0, 28.0, 52.0],
    },
    Palette {
        zenith: [84.0, 158.0, 206.0],
        horizon: [226.0, 240.0, 226.0],
        cloud: [254.0, 254.0, 250.0],
        sun: [255.0, 246.0, 206.0],
        far: [144.0, 182.0, 170.0],
        near: [74.0, 122.0, 44.0],
        water: [62.0, 120.0, 128.0],
    },
];
