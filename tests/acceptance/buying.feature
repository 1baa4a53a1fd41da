Feature: Buying
  An order reserves its pieces from the moment it is placed, at the prices of that moment.

  Scenario: An order reserves its pieces
    Given Ada is a customer
    And there are 10 lamps at 12.50 EUR each
    When Ada orders 3 lamps
    Then the order is waiting for payment
    And the order costs 37.50 EUR
    And 7 lamps are left

  Scenario: Several products are one order
    Given Ada is a customer
    And there are 10 lamps at 12.50 EUR each
    And there are 4 vases at 8.00 EUR each
    When Ada orders 2 lamps and 1 vases
    Then the order costs 33.00 EUR
    And 8 lamps are left
    And 3 vases are left

  Scenario: An order keeps the price at which it was placed
    Given Ada is a customer
    And Max is an administrator
    And there are 10 lamps at 12.50 EUR each
    And Ada has ordered 2 lamps
    When Max changes the price of lamps to 99.00 EUR
    Then the order costs 25.00 EUR

  Scenario: A request that is made twice is one order
    Given Ada is a customer
    And there are 10 lamps at 12.50 EUR each
    When Ada orders 2 lamps
    And Ada makes the same request again
    Then Ada has 1 order
    And 8 lamps are left

  Scenario: The products of one order have one currency
    Given Ada is a customer
    And there are 10 lamps at 12.50 EUR each
    And there are 10 mugs at 5.00 USD each
    When Ada orders 1 lamps and 1 mugs
    Then Ada is told "The products of one order must share a currency"
    And 10 lamps are left

  Scenario: An order that is cancelled gives its pieces back
    Given Ada is a customer
    And there are 10 lamps at 12.50 EUR each
    And Ada has ordered 4 lamps
    When Ada cancels the order
    Then the order is cancelled
    And 10 lamps are left

  Scenario: To everybody else there is no such order
    Given Ada is a customer
    And Ben is a customer
    And there are 10 lamps at 12.50 EUR each
    And Ada has ordered 1 lamps
    When Ben looks at the order
    Then Ben is told "There is nothing here"
    When Ben cancels the order
    Then Ben is told "There is nothing here"
    And the order is waiting for payment
