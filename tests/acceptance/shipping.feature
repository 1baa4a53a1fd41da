Feature: Shipping and refunds
  Support ships what is paid, and gives money back. Pieces that have left go back into stock only when somebody says so.

  Background:
    Given Ada is a customer
    And Sue works in support
    And there are 10 lamps at 12.50 EUR each
    And Ada has ordered 2 lamps

  Scenario: From the order to its arrival
    When Ada pays with a good card
    And Sue ships the order
    Then the order is shipped
    When Sue notes that it has arrived
    Then the order is delivered
    And Sue sees that it was waiting for payment, paid, shipped, delivered

  Scenario: What is not paid is not shipped
    When Sue ships the order
    Then Sue is told "The order cannot change that way from its status"
    And the order is waiting for payment

  Scenario: Before it was shipped, a refund gives money and pieces back
    Given Ada has paid with a good card
    When Sue refunds the order
    Then the order is refunded
    And Ada has spent 0.00 EUR
    And 10 lamps are left

  Scenario: After it was shipped, a refund gives the money back and no pieces
    Given Ada has paid with a good card
    And Sue has shipped the order
    When Sue refunds the order
    Then the order is refunded
    And Ada has spent 0.00 EUR
    And 8 lamps are left

  Scenario: Pieces that came back are put into stock with the refund
    Given Ada has paid with a good card
    And Sue has shipped the order
    And Sue has noted that it arrived
    When Sue refunds the order and puts its pieces into stock
    Then the order is refunded
    And 10 lamps are left

  Scenario: While the money is on its way back nothing else happens to the order
    Given Ada has paid with a card whose refund fails at first
    When Sue refunds the order
    Then the order is being refunded
    When Sue ships the order
    Then Sue is told "The order cannot change that way from its status"

  Scenario: Money is given back once
    Given Ada has paid with a good card
    And Sue has refunded the order
    When Sue refunds the order
    Then Sue is told "The order cannot change that way from its status"
    And 10 lamps are left

  Scenario: A customer ships and refunds nothing
    Given Ada has paid with a good card
    When Ada ships the order
    Then Ada is told "This needs a permission that you do not have"
    When Ada refunds the order
    Then Ada is told "This needs a permission that you do not have"
    And the order is paid
