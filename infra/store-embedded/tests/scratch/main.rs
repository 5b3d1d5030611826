mod store_cases;
