//! Products, and their lists.

use std::collections::BTreeSet;

use storekeeper::domain::ids::ProductId;
use storekeeper::domain::money::Money;
use storekeeper::domain::product::{Product, ProductStatus};
use storekeeper::persistence::StoreError;
use storekeeper::persistence::records::{
    NewInventory, OrderFilter, ProductChange, ProductFilter, ProductPatch, ProductSort,
};
use uuid::Uuid;

use crate::shop::{Shop, page};

/// Every product, by name.
pub(crate) const ALL: ProductFilter =
    ProductFilter { text: None, status: None, sort: ProductSort::Name, descending: false };

/// The SKUs of all pages of a list, and how many pages there were.
async fn skus(shop: &Shop, filter: &ProductFilter, limit: u32) -> (Vec<String>, usize) {
    let mut skus = Vec::new();
    let mut after = None;
    for pages in 1.. {
        let listed = shop.store.list_products(filter, &page(after.as_deref(), limit)).await.expect("a page");
        skus.extend(listed.rows.into_iter().map(|product| product.sku));
        after = listed.next;
        if after.is_none() {
            return (skus, pages);
        }
    }
    (skus, 0)
}

async fn add(shop: &Shop, products: &[(&str, &str, i64, ProductStatus)]) {
    for (sku, name, price, status) in products {
        let product = Product { status: *status, ..shop.product(sku, name, *price) };
        shop.store.insert_product(&product, None).await.expect("a new product");
        shop.wait(1);
    }
}

pub(crate) async fn a_product_comes_back_as_it_was_kept(shop: &Shop) {
    let product = Product { description: Some("Of brass".to_owned()), ..shop.product("L-1", "Lamp", 1_999) };
    shop.store.insert_product(&product, None).await.expect("a new product");
    assert_eq!(shop.store.product(product.id).await.expect("a read"), Some(product));
    assert_eq!(shop.store.product(ProductId(Uuid::now_v7())).await.expect("a read"), None);
}

pub(crate) async fn a_product_and_its_stock_are_made_whole_or_not_at_all(shop: &Shop) {
    let lamp = shop.product("L-1", "Lamp", 1_999);
    let stock = shop.stock_of(&lamp, 7);
    shop.store.insert_product(&lamp, Some(&stock)).await.expect("a new product");
    let kept = shop.store.product(lamp.id).await.expect("a read").expect("the product");
    assert_eq!((kept.inventory, kept.version), (Some(stock.id), 1));
    let inventory = shop.store.inventory(stock.id).await.expect("a read").expect("the stock");
    assert_eq!((inventory.balance.on_hand, inventory.balance.held, inventory.balance.seq), (7, 0, 1));

    let double = shop.product("L-1", "Other lamp", 5);
    let double_stock = shop.stock_of(&double, 1);
    let answer = shop.store.insert_product(&double, Some(&double_stock)).await;
    assert!(matches!(&answer, Err(StoreError::Constraint(rule)) if rule == "products_sku_unique"), "{answer:?}");

    let table = shop.product("T-1", "Table", 5);
    let taken = NewInventory { id: stock.id, ..shop.stock_of(&table, 1) };
    let answer = shop.store.insert_product(&table, Some(&taken)).await;
    assert!(matches!(&answer, Err(StoreError::Constraint(rule)) if rule == "inventories_pkey"), "{answer:?}");
    assert_eq!(shop.store.product(table.id).await.expect("a read"), None);
    assert_eq!(shop.store.inventory(double_stock.id).await.expect("a read"), None);
}

pub(crate) async fn those_of_many_products_that_there_are(shop: &Shop) {
    let (lamp, table) = (shop.product("L-1", "Lamp", 1), shop.product("T-1", "Table", 2));
    for product in [&lamp, &table] {
        shop.store.insert_product(product, None).await.expect("a new product");
    }
    let asked = [table.id, ProductId(Uuid::now_v7()), lamp.id, lamp.id];
    let found = shop.store.products(&asked).await.expect("a read");
    assert_eq!(found.len(), 2);
    let found: BTreeSet<ProductId> = found.iter().map(|product| product.id).collect();
    assert_eq!(found, BTreeSet::from([lamp.id, table.id]));
    assert_eq!(shop.store.products(&[]).await.expect("a read"), []);
}

pub(crate) async fn a_patch_changes_what_it_is_told_to(shop: &Shop) {
    let lamp = Product { description: Some("Of brass".to_owned()), ..shop.product("L-1", "Lamp", 1_999) };
    shop.store.insert_product(&lamp, None).await.expect("a new product");
    shop.wait(1);
    let patch = ProductPatch {
        name: Some("Große Lampe".to_owned()),
        description: Some(None),
        price: Some(Money(2_500)),
        status: Some(ProductStatus::Unlisted),
    };
    let wanted = Product {
        name: "Große Lampe".to_owned(),
        description: None,
        price: Money(2_500),
        status: ProductStatus::Unlisted,
        version: 2,
        updated_at: shop.now(),
        ..lamp.clone()
    };
    let changed = shop.store.patch_product(lamp.id, &patch, Some(1), shop.now()).await.expect("an answer");
    assert_eq!(changed, ProductChange::Changed(Box::new(wanted.clone())));
    assert_eq!(shop.store.product(lamp.id).await.expect("a read"), Some(wanted.clone()));
    let found = ProductFilter { text: Some("GROSSE".replace("SS", "ß")), ..ALL };
    assert_eq!(skus(shop, &found, 10).await.0, ["L-1"], "it is found by its new name");

    let nothing = shop.store.patch_product(lamp.id, &ProductPatch::default(), None, shop.now()).await;
    let wanted = Product { version: 3, ..wanted };
    assert_eq!(nothing.expect("an answer"), ProductChange::Changed(Box::new(wanted)));
}

pub(crate) async fn a_patch_of_a_stale_version_changes_nothing(shop: &Shop) {
    let lamp = shop.product("L-1", "Lamp", 1_999);
    shop.store.insert_product(&lamp, None).await.expect("a new product");
    let patch = ProductPatch { price: Some(Money(1)), ..ProductPatch::default() };
    let stale = shop.store.patch_product(lamp.id, &patch, Some(2), shop.now()).await.expect("an answer");
    assert_eq!(stale, ProductChange::Stale);
    assert_eq!(shop.store.product(lamp.id).await.expect("a read"), Some(lamp));
    let nobody = ProductId(Uuid::now_v7());
    let unknown = shop.store.patch_product(nobody, &patch, Some(1), shop.now()).await.expect("an answer");
    assert_eq!(unknown, ProductChange::NotFound);
}

pub(crate) async fn products_are_sorted_and_paged(shop: &Shop) {
    use ProductStatus::{Draft, Published};
    let kept = [("5", "apple", 300, Published), ("4", "Zebra", 100, Published), ("3", "Öl", 200, Draft)];
    add(shop, &kept).await;
    add(shop, &[("2", "Apple", 100, Published), ("1", "bread", 100, Published)]).await;
    let sorted = |sort, descending| ProductFilter { sort, descending, ..ALL };

    for limit in [1, 2, 3, 5, 6] {
        let by_name = skus(shop, &sorted(ProductSort::Name, false), limit).await;
        assert_eq!(by_name.0, ["5", "2", "1", "4", "3"], "pages of {limit}");
        assert_eq!(by_name.1, 5_usize.div_ceil(limit as usize), "no empty page behind the last");
        assert_eq!(skus(shop, &sorted(ProductSort::Name, true), limit).await.0, ["3", "4", "1", "2", "5"]);
        assert_eq!(skus(shop, &sorted(ProductSort::Price, false), limit).await.0, ["4", "2", "1", "3", "5"]);
        assert_eq!(skus(shop, &sorted(ProductSort::Price, true), limit).await.0, ["5", "3", "1", "2", "4"]);
        assert_eq!(skus(shop, &sorted(ProductSort::CreatedAt, true), limit).await.0, ["1", "2", "3", "4", "5"]);
        assert_eq!(skus(shop, &sorted(ProductSort::CreatedAt, false), limit).await.0, ["5", "4", "3", "2", "1"]);
    }
    let published = ProductFilter { status: Some(Published), ..ALL };
    assert_eq!(skus(shop, &published, 2).await.0, ["5", "2", "1", "4"]);

    let first = shop.store.list_products(&ALL, &page(None, 2)).await.expect("a page");
    add(shop, &[("0", "Aardvark", 1, Published), ("6", "Cheese", 1, Published)]).await;
    let second = shop.store.list_products(&ALL, &page(first.next.as_deref(), 2)).await.expect("a page");
    let second: Vec<&str> = second.rows.iter().map(|product| product.sku.as_str()).collect();
    assert_eq!(second, ["1", "6"], "what came in before the page does not shift it");
}

pub(crate) async fn products_are_found_by_part_of_name_or_sku(shop: &Shop) {
    let status = ProductStatus::Published;
    add(shop, &[("LMP-1", "Äußere Lampe", 1, status), ("TBL_1", "Tisch 100%", 1, status)]).await;
    let found = async |text: &str| skus(shop, &ProductFilter { text: Some(text.to_owned()), ..ALL }, 10).await.0;
    assert_eq!(found("lamp").await, ["LMP-1"]);
    assert_eq!(found("äUß").await, ["LMP-1"], "in any case, beyond ASCII too");
    assert_eq!(found("bl_").await, ["TBL_1"]);
    assert_eq!(found("0%").await, ["TBL_1"]);
    assert_eq!(found("%").await, ["TBL_1"], "no sign stands for others");
    assert_eq!(found("_").await, ["TBL_1"]);
    assert_eq!(found("-1").await, ["LMP-1"]);
    assert_eq!(found("1").await, ["TBL_1", "LMP-1"], "in SKUs and names");
    assert!(found("chair").await.is_empty());
}

pub(crate) async fn a_cursor_fits_its_own_list_only(shop: &Shop) {
    let status = ProductStatus::Published;
    add(shop, &[("1", "a", 1, status), ("2", "b", 2, status)]).await;
    let by_price = ProductFilter { sort: ProductSort::Price, ..ALL };
    let cursor = shop.store.list_products(&by_price, &page(None, 1)).await.expect("a page").next.expect("more");
    assert!(shop.store.list_products(&by_price, &page(Some(&cursor), 1)).await.is_ok());
    for other in
        [ALL, ProductFilter { sort: ProductSort::CreatedAt, ..ALL }, ProductFilter { descending: true, ..by_price }]
    {
        let answer = shop.store.list_products(&other, &page(Some(&cursor), 1)).await;
        assert!(matches!(answer, Err(StoreError::InvalidCursor)), "{other:?}: {answer:?}");
    }
    let orders = shop.store.list_orders(&OrderFilter::default(), &page(Some(&cursor), 1)).await;
    assert!(matches!(orders, Err(StoreError::InvalidCursor)), "{orders:?}");
}
