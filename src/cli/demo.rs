//! `storekeeper demo`: the catalogue and the stock of a small shop for tea and coffee, to try things on.

use std::io::{self, Write};

use uuid::Uuid;

use crate::config::Config;
use crate::domain::ids::{InventoryId, MovementId, ProductId};
use crate::domain::money::{Currency, Money};
use crate::domain::product::{Product, ProductStatus};
use crate::domain::timestamp::Timestamp;
use crate::persistence::clock::Clock;
use crate::persistence::records::{NewInventory, Page, ProductFilter, ProductSort};
use crate::persistence::{Catalogue, StoreError};

use super::CliError;
use ProductStatus::{Draft, Published, Unlisted};

/// A product of the shop: SKU, name, description, price in hundredths, status, units in stock.
struct Ware(&'static str, &'static str, &'static str, i64, ProductStatus, i64);

#[rustfmt::skip]
const WARES: [Ware; 24] = [
    Ware("TEA-ASSAM-100", "Assam Mangalam, 100 g", "Second flush, malty and strong enough for milk.", 1290, Published, 140),
    Ware("TEA-DARJ-100", "Darjeeling First Flush, 100 g", "Light and floral, from the spring picking. Steep for two minutes.", 1890, Published, 60),
    Ware("TEA-EARL-100", "Earl Grey, 100 g", "Ceylon leaves with oil of Calabrian bergamot.", 1090, Published, 200),
    Ware("TEA-SENCHA-100", "Sencha Fukamushi, 100 g", "Deep-steamed green tea from Kagoshima. Water at 70 °C.", 1650, Published, 80),
    Ware("TEA-OOLONG-50", "Tie Guan Yin, 50 g", "Rolled oolong, good for five infusions.", 1420, Published, 75),
    Ware("TEA-PUERH-CAKE", "Ripe Pu-erh Cake, 357 g", "Pressed in 2019, stored dry. Earth, dates, no bitterness.", 4450, Published, 24),
    Ware("TEA-ROOIBOS-100", "Rooibos, 100 g", "Red bush from the Cederberg, free of caffeine.", 690, Published, 180),
    Ware("TEA-MINT-50", "Nana Mint, 50 g", "Whole dried leaves, nothing else.", 590, Published, 150),
    Ware("COF-YIRG-250", "Yirgacheffe, 250 g", "Washed, lightly roasted: bergamot and apricot. Whole beans.", 1390, Published, 90),
    Ware("COF-HUILA-250", "Huila Decaf, 250 g", "Sugar-cane decaffeinated, medium roast. Whole beans.", 1350, Published, 45),
    Ware("COF-ESPR-1000", "House Espresso, 1 kg", "Brazil and Sumatra, dark enough for milk, not burnt. Whole beans.", 2990, Published, 70),
    Ware("COF-GEISHA-100", "Panama Geisha, 100 g", "One lot of twelve kilograms a year. One tin a cup of patience.", 4900, Published, 12),
    Ware("POT-IRON-800", "Cast-iron Teapot, 0.8 l", "Enamelled inside, with a steel strainer. Not for the stove.", 6400, Published, 18),
    Ware("POT-GLASS-1200", "Glass Teapot, 1.2 l", "Borosilicate glass with a wide glass strainer.", 3250, Published, 35),
    Ware("CUP-DOUBLE-2", "Double-walled Cups, pair", "Two cups of 250 ml that do not burn fingers.", 2200, Published, 64),
    Ware("CUP-ESPR-6", "Espresso Cups, set of six", "Thick porcelain, 70 ml, with saucers.", 3600, Published, 28),
    Ware("DRIP-V60-02", "Ceramic Dripper, size 02", "For one to four cups, with a measuring spoon.", 2490, Published, 52),
    Ware("DRIP-PAPER-100", "Paper Filters 02, 100 sheets", "Unbleached, fit our ceramic dripper.", 690, Published, 400),
    Ware("KET-GOOSE-900", "Gooseneck Kettle, 0.9 l", "Stainless steel, for any stove, with a thermometer in the lid.", 5900, Published, 22),
    Ware("MILL-HAND-40", "Hand Grinder, 40 g", "Steel burrs, thirty-six steps, fits a rucksack.", 8900, Published, 16),
    Ware("SCALE-01G", "Brewing Scale", "To 2 kg in tenths of a gram, with a timer.", 3990, Published, 0),
    Ware("TIN-150", "Tea Tin, 150 g", "Tin plate with a second lid inside. No print.", 850, Published, 120),
    Ware("GIFT-FRIENDS", "Box for Friends of the House", "Three teas and a tin that are in no shop window. For those who have the link.", 3800, Unlisted, 30),
    Ware("TEA-MATCHA-30", "Matcha Uji, 30 g", "Stone-ground; arrives with the next shipment. Text to be written.", 2450, Draft, 0),
];

/// Fills the database, which must have no products.
pub(super) async fn fill(config: &Config) -> Result<(), CliError> {
    let store = super::open(&config.store).await?;
    let filled = fill_store(store.as_ref(), config.shop.currency, Clock::system().now()).await;
    store.close().await;
    filled?;
    let units: i64 = WARES.iter().map(|ware| ware.5).sum();
    writeln!(io::stdout(), "{} products are in the catalogue, {units} units on the shelves.", WARES.len())?;
    Ok(())
}

async fn fill_store(store: &dyn Catalogue, currency: Currency, now: Timestamp) -> Result<(), CliError> {
    let any = ProductFilter { text: None, status: None, sort: ProductSort::CreatedAt, descending: true };
    let first = store.list_products(&any, &Page { after: None, limit: 1 }).await?;
    if !first.rows.is_empty() {
        return Err(CliError::NotEmpty);
    }
    for ware in &WARES {
        insert(store, ware, currency, now).await?;
    }
    Ok(())
}

async fn insert(store: &dyn Catalogue, ware: &Ware, currency: Currency, now: Timestamp) -> Result<(), StoreError> {
    let Ware(sku, name, description, hundredths, status, quantity) = *ware;
    let (product, inventory) = (ProductId(Uuid::now_v7()), InventoryId(Uuid::now_v7()));
    let stock = NewInventory {
        id: inventory,
        product,
        sku: sku.to_owned(),
        quantity,
        movement: MovementId(Uuid::now_v7()),
        actor: "demo".to_owned(),
        at: now,
    };
    let product = Product {
        id: product,
        sku: sku.to_owned(),
        name: name.to_owned(),
        description: Some(description.to_owned()),
        price: price(hundredths, currency),
        status,
        inventory: Some(inventory),
        version: 1,
        created_at: now,
        updated_at: now,
    };
    store.insert_product(&product, Some(&stock)).await
}

/// The price in the currency's own minor units: what costs 12.90 somewhere costs 12.900, or 12, elsewhere.
fn price(hundredths: i64, currency: Currency) -> Money {
    let minor_units_a_major = 10_i64.pow(u32::from(currency.decimals()));
    Money((hundredths * minor_units_a_major).div_euclid(100).max(1))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_catalogue_is_one_the_api_would_take() {
        let skus: BTreeSet<_> = WARES.iter().map(|ware| ware.0).collect();
        assert_eq!(skus.len(), WARES.len());
        for Ware(sku, name, description, hundredths, _, units) in &WARES {
            assert!((3..=64).contains(&sku.len()) && (3..=255).contains(&name.len()), "{sku}");
            assert!(description.len() <= 1000 && *hundredths > 0 && *units >= 0, "{sku}");
        }
    }

    #[test]
    fn prices_fit_the_currency() {
        let show = |code| Currency::from_code(code).map(|currency| currency.show(price(1290, currency)));
        assert_eq!(show("EUR").as_deref(), Some("12.90"));
        assert_eq!(show("JPY").as_deref(), Some("12"));
        assert_eq!(show("BHD").as_deref(), Some("12.900"));
    }
}
