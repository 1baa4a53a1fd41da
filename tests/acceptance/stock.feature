Feature: Stock
  No piece is sold twice, and nobody gets a part of what they have ordered.

  Scenario: More than there is cannot be ordered
    Given Ada is a customer
    And there are 2 lamps at 12.50 EUR each
    When Ada orders 3 lamps
    Then Ada is told "There is not enough stock"
    And 2 lamps are left
    And Ada has 0 orders

  Scenario: The last piece is sold once
    Given Ada is a customer
    And Ben is a customer
    And there are 1 lamps at 12.50 EUR each
    When Ada orders 1 lamps
    And Ben orders 1 lamps
    Then Ben is told "There is not enough stock"
    And Ada has 1 order

  Scenario: However many order at the same moment, what there is is sold and no more
    Given Ada is a customer
    And there are 3 lamps at 12.50 EUR each
    When 10 orders of 1 lamps arrive from Ada at the same moment
    Then Ada has 3 orders
    And 0 lamps are left

  Scenario: What comes in can be ordered again
    Given Ada is a customer
    And Max is an administrator
    And there are 0 lamps at 12.50 EUR each
    When Ada orders 1 lamps
    Then Ada is told "There is not enough stock"
    When Max adds 5 lamps to the stock
    And Ada orders 1 lamps
    Then the order is waiting for payment
    And 4 lamps are left

  Scenario: What is not there cannot be taken out
    Given Max is an administrator
    And there are 5 lamps at 12.50 EUR each
    When Max takes 6 lamps out of the stock
    Then Max is told "Stock cannot go below zero"
    And 5 lamps are left
