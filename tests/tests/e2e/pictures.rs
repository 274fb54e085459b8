//! Pictures of the timeline's page, compared with those that people have looked at: `tests/golden/timeline`. With
//! `WAKEBOX_PICTURES=write` they are taken anew.
//!
//! The browser compares, as a person with bad eyes would: both pictures are drawn small, so that another font, which
//! moves a word by some pixels, is no difference, and a lane, a colour or a panel that is missing is one.

use serde_json::{Value, json};
use wakebox_tests::browser::Browser;
use wakebox_tests::{made_up, root, runtime};

use crate::timeline::page;

/// Pixels of a picture that is compared.
const SMALL: (u32, u32) = (60, 40);

/// Most that brightness may differ, of 255: on the whole, and in one of those pixels.
const MOST: (f64, f64) = (2.0, 45.0);

/// How a page is looked at.
struct Look {
    name: &'static str,
    theme: &'static str,
    width: u32,
    tasks: u32,
    events: usize,
}

const LOOKS: [Look; 5] = [
    Look {
        name: "light",
        theme: "light",
        width: 1200,
        tasks: 8,
        events: 300,
    },
    Look {
        name: "dark",
        theme: "dark",
        width: 1200,
        tasks: 8,
        events: 300,
    },
    Look {
        name: "narrow",
        theme: "light",
        width: 400,
        tasks: 8,
        events: 300,
    },
    Look {
        name: "few",
        theme: "light",
        width: 1200,
        tasks: 2,
        events: 20,
    },
    Look {
        name: "many",
        theme: "light",
        width: 1200,
        tasks: 100,
        events: 500_000,
    },
];

/// Brightness of the pixels of a picture, by the browser's own scaling.
const SHRINK: &str = "const [data, width, height, done] = arguments; const image = new Image(); \
    image.onload = () => { const canvas = document.createElement('canvas'); canvas.width = width; \
    canvas.height = height; const pen = canvas.getContext('2d'); pen.imageSmoothingQuality = 'high'; \
    pen.drawImage(image, 0, 0, width, height); const { data } = pen.getImageData(0, 0, width, height); \
    const light = []; for (let at = 0; at < data.length; at += 4) \
    light.push(0.3 * data[at] + 0.6 * data[at + 1] + 0.1 * data[at + 2]); \
    done([image.naturalWidth, image.naturalHeight, ...light]); }; image.src = data;";

async fn shrunk(browser: &Browser, png: &[u8]) -> Vec<f64> {
    let data = format!("data:image/png;base64,{}", base64(png));
    let (width, height) = SMALL;
    let args: Vec<Value> = vec![json!(data), json!(width), json!(height)];
    let light = browser.client.execute_async(SHRINK, args).await.unwrap();
    serde_json::from_value(light).unwrap()
}

/// RFC 4648, 4.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = three
            .iter()
            .fold(0, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - three.len()));
        for place in 0..4 {
            match place <= three.len() {
                true => text.push(LETTERS[(bits >> (18 - 6 * place) & 63) as usize].into()),
                false => text.push('='),
            }
        }
    }
    text
}

/// The picture of a page in a frame of its own, for no window is as narrow as a telephone.
async fn taken(browser: &Browser, look: &Look) -> Vec<u8> {
    let page = page(&made_up::server(look.tasks, look.events));
    let folder = page.path.parent().unwrap();
    let frame = folder.join("frame.html");
    let html = format!(
        "<body style='margin:0;background:#888'><iframe src='{}' width={} height=640 style='border:0'></iframe>",
        page.path.file_name().unwrap().display(),
        look.width
    );
    std::fs::write(&frame, html).unwrap();
    let address = format!("file://{}", frame.display());
    browser.client.goto(&address).await.unwrap();
    browser.client.enter_frame(0).await.unwrap();
    let drawn = fantoccini::Locator::Css("html[data-ready=true]");
    browser.client.wait().for_element(drawn).await.unwrap();
    let theme = format!("document.documentElement.dataset.theme = '{}'", look.theme);
    browser.eval(&theme).await;
    // As its own button does; and one more frame, in which it is drawn.
    browser.eval("wakebox.chart.palette()").await;
    let frames = "const [done] = arguments; requestAnimationFrame(() => requestAnimationFrame(() => done(1)))";
    browser
        .client
        .execute_async(frames, Vec::new())
        .await
        .unwrap();
    browser.client.screenshot().await.unwrap()
}

fn differ(old: &[f64], new: &[f64]) -> Option<String> {
    if old[..2] != new[..2] {
        return Some(format!("the sizes are {:?} and {:?}", &old[..2], &new[..2]));
    }
    let apart: Vec<f64> = old[2..]
        .iter()
        .zip(&new[2..])
        .map(|(old, new)| (old - new).abs())
        .collect();
    let mean = apart.iter().sum::<f64>() / apart.len() as f64;
    let worst = apart.iter().copied().fold(0.0, f64::max);
    let (most_mean, most) = MOST;
    (mean > most_mean || worst > most)
        .then(|| format!("brightness differs by {mean:.1} on the whole, and by {worst:.0} at most"))
}

fn kept(name: &str, png: &[u8]) -> std::path::PathBuf {
    let folder = root().join("target/pictures");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name).with_extension("png");
    std::fs::write(&path, png).unwrap();
    path
}

#[test]
fn the_page_looks_as_it_did_when_somebody_looked_at_it() {
    let golden = root().join("tests/golden/timeline");
    let writes = std::env::var_os("WAKEBOX_PICTURES").is_some_and(|value| value == "write");
    runtime().block_on(async {
        let browser = Browser::start(1200, 800).await;
        let mut wrong = Vec::new();
        let mut all: Vec<Vec<f64>> = Vec::new();
        for look in &LOOKS {
            let png = taken(&browser, look).await;
            let file = golden.join(look.name).with_extension("png");
            if writes {
                std::fs::write(&file, &png).unwrap();
                continue;
            }
            let old = std::fs::read(&file).expect("a picture to compare with");
            let (old, new) = (shrunk(&browser, &old).await, shrunk(&browser, &png).await);
            if let Some(how) = differ(&old, &new) {
                let here = kept(look.name, &png);
                wrong.push(format!("{}: {how}; it is {}", look.name, here.display()));
            }
            // The comparison tells them apart: each is another picture.
            assert!(
                all.iter().all(|other| differ(other, &new).is_some()),
                "{}",
                look.name
            );
            all.push(new);
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    });
}
