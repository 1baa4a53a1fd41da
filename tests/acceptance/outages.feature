Feature: Outages
  What is down is said, what does not need it goes on, and nothing that was promised is lost.

  Background:
    Given Ada is a customer
    And there are 10 lamps at 12.50 EUR each
    And Ada has ordered 2 lamps

  Scenario: While orders cannot be had, the rest of the overview can
    When the order service hangs
    Then Ada sees her profile, and that orders are missing
    When Ada orders 1 lamps
    Then Ada is told "The request took too long"
    When the order service goes on
    Then the order is waiting for payment

  Scenario: An order that was placed is there after the order service has died
    When the order service dies
    And it is back
    Then the order is waiting for payment
    When Ada pays with a good card
    Then the order is paid
